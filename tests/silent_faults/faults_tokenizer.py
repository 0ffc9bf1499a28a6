"""Tokenizers that turn text into ids without complaint, and into the wrong ones."""

import shutil
from typing import Any

from course_helpers import FAMILIES
from tests.bundled import FOLDERS
from tests.silent_faults.fault import ALL, Fault, Patient

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json")
#: Those of Qwen3 and OLMo 3 are the same for plain text: both were made from the same stories in the same way.
OTHER = {family: "gemma3" if family in ("qwen3", "qwen3_moe", "olmo3") else "qwen3" for family in ALL}
JSON = ("llama3", "qwen3", "qwen3_moe", "gemma3", "olmo3")


def of_another_family(patient: Patient) -> None:
    for name in TOKENIZER_FILES:
        (patient.folder / name).unlink(missing_ok=True)
        other = FOLDERS[FAMILIES[OTHER[patient.family]].tiny] / name
        if other.exists():
            shutil.copyfile(other, patient.folder / name)


def words_exchanged(patient: Patient) -> None:
    """The ids of two frequent words, each under the other's name."""

    def change(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        one, other = (next(name for name in vocabulary if name[1:] == word) for word in ("the", "and"))
        vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]

    patient.edit_json("tokenizer.json", change)


def without_beginning(patient: Patient) -> None:
    """Texts no longer begin with their mark."""
    if (patient.folder / "tokenizer.json").exists():
        patient.edit_json("tokenizer.json", lambda content: content.update(post_processor=None))
    patient.edit_json("tokenizer_config.json", lambda content: content.update(add_bos_token=False))


def with_beginning(patient: Patient) -> None:
    """Texts begin with a mark that the model never saw there in front of a prompt."""
    patient.edit_json("tokenizer_config.json", lambda content: content.update(add_bos_token=True))


def fewer_merges(patient: Patient) -> None:
    """The last merges are missing: text becomes more and shorter tokens."""
    patient.edit_json(
        "tokenizer.json", lambda content: content["model"].update(merges=content["model"]["merges"][:-100])
    )


FAULTS = (
    Fault("another family's tokenizer", "3, 6.5", ALL, of_another_family),
    Fault("two words exchanged in the vocabulary", "", JSON, words_exchanged),
    Fault("the last merges missing", "", JSON, fewer_merges),
    Fault("texts without the token that begins them", "0.10", ("llama2", "llama3", "gemma3"), without_beginning),
    Fault("texts with a beginning token that they should not have", "", ("gpt2",), with_beginning),
)
