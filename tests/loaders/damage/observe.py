"""What becomes of a damaged checkpoint: who notices, and what is said. Nothing is assumed; all of it is tried."""

import copy
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from weakref import WeakKeyDictionary

import torch

from course_helpers import CheckpointError, load_weights
from course_helpers.architectures.base import LanguageModel
from course_helpers.loaders.manifest_files import MANIFEST
from tests.loaders.damage.case import Case
from tests.loaders.damage.kind import BYTES, EQUAL, FILES, REFUSED, VERIFY, Kind, nothing
from tests.loaders.damage.kind import MANIFEST as SMALL
from tests.loaders.refusals import assert_untouched, check_answers
from tests.tiny_models import logits_of, random_ids, same_parameters

NOBODY = "nobody"


@dataclass(frozen=True)
class Observed:
    """Who notices, what is said, and whether weights of the kind are kept out of a model in hand."""

    by: str
    says: str = ""
    kept_out: bool = False


def observe(kind: Kind, format: str, seed: int = 0) -> Observed:
    """Damage one checkpoint and try everything, in the order of the stages. Raises AssertionError where loading does
    something that it must never do, and any error that is not a CheckpointError."""
    random = Random(f"{kind.name}, {format}, {seed}")
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch, on what damaged pickles claim
        folder = Path(place) / "inner" / "model"
        folder.mkdir(parents=True)
        case = Case(random.choice(kind.families_in(format)), format, folder)
        kind.prepare(case, random)
        sound = case.load() if kind.prepare is not nothing else case.whole.model
        if format in FILES:
            case.list_files()
            manifest = (folder / MANIFEST).read_bytes()
            (folder / MANIFEST).unlink()
        kind.damage(case, random)
        mapped, streamed = (attempt(case, strategy=strategy) for strategy in ("mmap", "stream"))
        assert type(mapped) is type(streamed), "the strategies disagree"
        in_hand = hand_over(case, sound, streamed)
        assert not list(folder.rglob("ran")), "code ran"
        if isinstance(streamed, CheckpointError):
            assert str(streamed) == str(mapped)
            return Observed(REFUSED, str(streamed), True)
        if is_equal(streamed, sound):
            assert is_equal(mapped, sound)
            return Observed(EQUAL)
        if isinstance(error := attempt(case, verify=True), CheckpointError):
            return Observed(VERIFY, str(error), in_hand)
        if format in FILES:
            (folder / MANIFEST).write_bytes(manifest)
            for by, options in ((SMALL, {}), (BYTES, {"verify": True})):
                if isinstance(error := attempt(case, **options), CheckpointError):
                    return Observed(by, str(error), in_hand)
        return Observed(NOBODY, "", in_hand)


def attempt(case: Case, **options: Any) -> LanguageModel | CheckpointError:
    """The model that is loaded, or the refusal, which is checked to say all it should."""
    try:
        return case.load(**options)
    except CheckpointError as error:
        check_answers(error)
        return error


#: A model in hand for each sound one, made once and filled anew each time.
IN_HAND: WeakKeyDictionary[LanguageModel, LanguageModel] = WeakKeyDictionary()


def hand_over(case: Case, sound: LanguageModel, loaded: LanguageModel | CheckpointError) -> bool:
    """Give the weights to a model in hand that has the right config; whether they are kept out. A refusal must leave it
    as it was, to the bit, and `load_weights` refuses all that `load_model` does."""
    model = IN_HAND[sound] if sound in IN_HAND else IN_HAND.setdefault(sound, copy.deepcopy(sound))
    before = {name: tensor + 1 for name, tensor in sound.state_dict().items()}
    model.load_state_dict(before)
    try:
        load_weights(model, case.source, config=case.config)
    except CheckpointError as error:
        check_answers(error)
        assert_untouched(model, before)
        return True
    # Weights without a config are enough for a model that has one.
    assert isinstance(loaded, LanguageModel) or "no config.json" in str(loaded), "load_weights takes it"
    return False


def is_equal(model: LanguageModel, sound: LanguageModel) -> bool:
    """Whether two models are one: the same parameters under the same config, or the same logits to the bit."""
    if model.config == sound.config:
        return model.dtype == sound.dtype and same_parameters(model, sound)
    if model.config.vocab_size != sound.config.vocab_size:
        return False
    ids = random_ids({"vocab_size": sound.config.vocab_size}, 2, 40)
    return torch.equal(logits_of(model, ids), logits_of(sound, ids))
