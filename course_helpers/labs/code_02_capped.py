"""The check function for exercise 3 of M9-CODE-02: a whole family, the capped Llama; each failure names the mistake.

Shape suffixes: B batch, T tokens, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..architectures.llama import LlamaModel
from ..errors import CheckpointError
from ..loaders.assign import make_plan
from ..loaders.rules import WeightMap
from ..loaders.save import export
from ..loaders.sources import open_checkpoint
from .checkpoint import hint
from .code_02_exercises import SMALL, random_llama
from .exercises import answer

CAP_FIELD = "final_logit_softcapping"


def check_capped_llama(capped_llama: Callable[[], Any]) -> None:
    """Exercise 3: a whole family, against logits of a plain Llama that are capped here, number by number."""
    adapter = answer(capped_llama)
    for name in ("model_types", "read_config", "model", "weight_maps", "load_tokenizer"):
        hint(not hasattr(adapter, name), f"expected an Adapter, and this has no {name}")
    hint(isinstance(adapter.model_types, str), 'model_types is a tuple, also of one: ("capped_llama",), with the comma')
    hint(
        tuple(adapter.model_types) != ("capped_llama",),
        f"the adapter answers to {adapter.model_types}, and the family is called capped_llama",
    )
    hint(
        isinstance(adapter.weight_maps, WeightMap), "weight_maps is a tuple, also of one: (maps.LLAMA,) with the comma"
    )
    hint(
        isinstance(adapter.read_config, type),
        "read_config gets the parsed config.json: give the method from_hf of your config class, not the class",
    )
    for cap in (2.0, 0.5):
        config, model, expected, plain = built(adapter, cap)
        ids_BT = torch.arange(20)[None] * 7 % SMALL.vocab_size
        with torch.no_grad():
            hint_about_logits(model(ids_BT), expected(ids_BT), plain(ids_BT), cap)
            hint_about_the_rest(model, ids_BT, expected(ids_BT), plain(ids_BT, hidden_states=True))
        hint_about_config(config, cap)
    hint_about_missing_cap(adapter)
    print("Exercise 3: right. A family in three small pieces, with and without cache, for any cap.")


def config_data(cap: float | None) -> dict[str, Any]:
    """What the config.json of such a model holds."""
    data = SMALL.to_hf() | {"model_type": "capped_llama", "architectures": ["CappedLlamaForCausalLM"]}
    return data if cap is None else data | {CAP_FIELD: cap}


def built(adapter: Any, cap: float) -> tuple[Any, Any, Callable[..., Tensor], LlamaModel]:
    """The learner's config and model with a random Llama's weights; what its logits must be; and the plain Llama."""
    plain, data = random_llama(), config_data(cap)
    try:
        config = adapter.read_config(data)
        model = adapter.model(config).eval()
    except CheckpointError as error:
        cause = " Is model_type set in your config class?" if error.field == "model_type" else ""
        hint(True, f"the config was refused: {error.what} ({error.field}).{cause}")
    hint(
        not hasattr(config, CAP_FIELD),
        f"the config must keep {CAP_FIELD}: is @dataclass(frozen=True, kw_only=True) above your class?",
    )
    with open_checkpoint(export(plain), data) as checkpoint:
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        try:
            plan = make_plan(checkpoint, tuple(adapter.weight_maps), config, shapes)
        except CheckpointError as error:
            hint(True, f"its tensors are those of a Llama, and they were refused: {error.summary()}")
        for name, rule in plan.steps.items():
            for target, piece in zip(
                rule.targets, rule.to_ours(checkpoint.read(name), [shapes[t] for t in rule.targets]), strict=True
            ):
                model.get_parameter(target).data.copy_(piece)

    def expected(ids_BT: Tensor) -> Tensor:
        logits = plain(ids_BT)  # number by number, so that it shares nothing with the answer
        return torch.tensor([cap * math.tanh(x / cap) for x in logits.flatten().tolist()]).view_as(logits)

    return config, model, expected, plain


def hint_about_logits(found: Tensor, expected: Tensor, plain: Tensor, cap: float) -> None:
    """Say what was done to the logits instead of capping them."""

    def same(other: Tensor) -> bool:
        return torch.allclose(found, other, atol=1e-5)

    hint(not isinstance(found, Tensor) or found.shape != plain.shape, "logits must keep their shape (B, T, V)")
    hint(same(plain), "these are a plain Llama's logits: is forward overridden, and is your model in the adapter?")
    hint(same(plain.clamp(-cap, cap)), "you cut the logits off; a soft cap bends them: cap * tanh(logits / cap)")
    hint(same(torch.tanh(plain / cap)), "between -1 and 1: the result must be multiplied by the cap again")
    hint(same(cap * torch.tanh(plain)), "divide by the cap before the tanh: small logits should hardly change")
    hint(same(torch.tanh(plain)), "where is the cap? cap * tanh(logits / cap)")
    for other in (2.0, 0.5, 30.0):
        hint(
            other != cap and same(other * torch.tanh(plain / other)),
            f"the config says {cap}, and the logits are capped at {other}: read it from self.config",
        )
    hint(not same(expected), f"with a cap of {cap}, these are not cap * tanh(logits / cap)")


def hint_about_the_rest(model: Any, ids_BT: Tensor, expected: Tensor, hidden: Tensor) -> None:
    """The other ways in which a model is called: with a cache, for the last token, and for hidden states."""
    cache = model.make_cache(1, ids_BT.shape[1])
    try:
        model(ids_BT[:, :-1], cache=cache)
        last = model(ids_BT[:, -1:], cache=cache, last_only=True)
        states = model(ids_BT, hidden_states=True)
    except TypeError as error:
        hint(True, f"forward must take what every model takes (cache, last_only, hidden_states, ...): {error}")
    hint(
        last.shape[1] != 1 or not torch.allclose(last[:, -1], expected[:, -1], atol=1e-5),
        "right in one pass, and wrong with a cache: hand all arguments on to super().forward",
    )
    hint(
        not torch.allclose(states, hidden, atol=1e-5),
        "with hidden_states=True forward returns what comes before the head: no logits, so no cap",
    )


def hint_about_config(config: Any, cap: float) -> None:
    hint(getattr(config, CAP_FIELD, None) != cap, f"the config must keep {CAP_FIELD}, or a saved model loses it")
    saved = config.to_hf()
    hint(
        saved.get(CAP_FIELD) != cap or saved.get("model_type") != "capped_llama",
        "config.to_hf(), which is what a saved config.json holds, must name the family and its cap",
    )


def hint_about_missing_cap(adapter: Any) -> None:
    try:
        adapter.read_config(config_data(None))
    except CheckpointError as error:
        hint(error.field != CAP_FIELD, f"a config without a cap was refused for another reason: {error.what}")
    else:
        hint(
            True,
            "a config without a cap was read: it changes every number, so it must not have a default. Declare the "
            "field without one",
        )
