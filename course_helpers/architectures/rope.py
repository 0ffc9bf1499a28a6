"""Rotary position embeddings (RoPE): the four kinds that the families of this course use.

RoPE turns each pair of query and key dimensions by an angle that grows with the token's position. Pair i turns with
`frequency_i = theta ** (-2 i / head_dim)` radians per position: fast for the first pairs, very slow for the last.
A model trained on short texts is stretched to longer ones by slowing some of the pairs down:

    default   no stretching                                                   (Llama 2, Llama 3, Qwen3)
    linear    every pair slowed by `factor`                                   (Gemma 3, 4B and up, global layers)
    llama3    slow pairs slowed by `factor`, fast ones kept, a blend between  (Llama 3.1 and 3.2)
    yarn      the same idea with another blend, and cos and sin are scaled    (OLMo 3, full-attention layers)

Shape suffixes: B batch, T tokens, H heads, D head dimension.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn

from ..errors import ConfigError, CourseWarning
from .config import FULL, SLIDING, checked

#: What each kind must find in config.json beside `rope_theta`, and what it may find.
NEEDED = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
OPTIONAL = {"yarn": ("attention_factor", "beta_fast", "beta_slow", "truncate")}


@dataclass(frozen=True, kw_only=True)
class RopeParameters:
    """How fast each pair of dimensions turns. Field names are those of config.json."""

    rope_type: str = "default"
    rope_theta: float
    factor: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    truncate: bool | None = None

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Self:
        """Read both dialects: `rope_theta` + `rope_scaling` (transformers 4), `rope_parameters` (transformers 5).

        Raises ConfigError for a kind of scaling, or a field of it, that is not implemented. A missing `rope_theta`
        (early Llama 2 files leave it out) becomes 10000, as in transformers, with a CourseWarning.
        """
        # The order of preference is transformers' own (RotaryEmbeddingConfigMixin.convert_rope_params_to_dict).
        found = data.get("rope_scaling") or data.get("rope_parameters") or {}
        if not isinstance(found, Mapping):
            raise unsupported("rope_scaling", found, "a JSON object")
        found = dict(found)
        nested = next((name for name, value in found.items() if isinstance(value, Mapping)), None)
        if nested is not None:
            raise unsupported("rope_parameters", f"parameters of their own for {nested!r}", "one set for all layers")
        kind = found.pop("rope_type", None) or found.pop("type", None) or "default"
        found.pop("type", None)
        theta = found.pop("rope_theta", None)
        theta = data.get("rope_theta") if theta is None else theta
        if theta is None:
            theta = 10_000.0
            warnings.warn("config.json has no rope_theta; 10000 is assumed", CourseWarning, stacklevel=4)
        if not isinstance(kind, str) or kind not in NEEDED:
            raise unsupported("rope_type", kind, " or ".join(NEEDED))
        partial = found.pop("partial_rotary_factor", None) or data.get("partial_rotary_factor") or 1.0
        if partial != 1.0:
            raise unsupported("partial_rotary_factor", partial, "1.0")
        outer = data.get("original_max_position_embeddings")
        if outer is not None and "original_max_position_embeddings" in NEEDED[kind]:
            found["original_max_position_embeddings"] = outer  # transformers prefers this place, too
        found = {name: value for name, value in found.items() if value is not None}
        if kind == "default":
            found = {}  # it turns every pair at its own speed whatever else stands beside it, as in transformers
        extra = set(found) - set(NEEDED[kind]) - set(OPTIONAL.get(kind, ()))
        missing = set(NEEDED[kind]) - set(found)
        for names, what in ((extra, "not implemented for"), (missing, "needed for")):
            for name in sorted(names):
                raise unsupported(name or "''", found.get(name, "nothing"), f"{what} rope_type {kind!r}")
        if found.get("low_freq_factor") is not None and found["low_freq_factor"] == found["high_freq_factor"]:
            raise unsupported("high_freq_factor", found["high_freq_factor"], "more than low_freq_factor")
        numbers = {"rope_theta": theta} | found
        kinds = {field.name: get_args(field.type)[0] if get_args(field.type) else field.type for field in fields(cls)}
        return cls(rope_type=kind, **{name: checked(name, kinds[name], value) for name, value in numbers.items()})

    def to_hf(self) -> dict[str, Any]:
        """`rope_theta` and `rope_scaling` as real checkpoints write them (read by transformers 4 and 5)."""
        scaling = {name: value for name, value in self.to_nested().items() if name != "rope_theta"}
        return {"rope_theta": self.rope_theta, "rope_scaling": scaling if self.rope_type != "default" else None}

    def to_nested(self) -> dict[str, Any]:
        """The fields that are set, as transformers 5 nests them by layer type."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def inverse_frequencies(self, head_dim: int) -> tuple[Tensor, float]:
        """Radians per position for each pair, float32 of shape (head_dim / 2,), and the factor on cos and sin."""
        frequencies = 1.0 / (
            self.rope_theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim)
        )
        return KINDS[self.rope_type](self, frequencies, head_dim)


def _sets(nested: Any) -> Any:
    """`rope_parameters` without what early releases of transformers 5 leave beside two whole sets, saying nothing."""
    silent = ("rope_type", "default"), ("rope_theta", None)
    complete = isinstance(nested, Mapping) and {FULL, SLIDING} <= nested.keys()
    return {name: value for name, value in nested.items() if (name, value) not in silent} if complete else nested


def layered_from_hf(
    data: Mapping[str, Any], theta_fields: Mapping[str, str | None], usual_theta: Mapping[str, float]
) -> dict[str, RopeParameters]:
    """Rotary positions of a family that has a set of its own for each type of layer, again from both dialects.

    transformers 5 nests `rope_parameters` by layer type. Older files have a base frequency for each layer type (its
    field in config.json: `theta_fields`; None: always the usual one), and a `rope_scaling` that is meant for the
    full-attention layers only: a sliding layer never looks further back than the model was trained for. `usual_theta`
    is what all released models of the family have; it is assumed, with a CourseWarning, where config.json ought to
    say it and does not. Raises ConfigError.
    """
    nested, scaling = _sets(data.get("rope_parameters") or {}), data.get("rope_scaling") or {}
    if not isinstance(nested, Mapping) or not {FULL, SLIDING}.issuperset(nested):
        raise unsupported("rope_parameters", nested, f"an object with {FULL!r} and {SLIDING!r}")
    for part in (scaling, *nested.values()):
        if not isinstance(part, Mapping | None):
            raise unsupported("rope_parameters", part, "a JSON object")
    if scaling.get("type", "default") != "default" and not scaling.get("rope_type"):
        # transformers 5 keeps its own rope_type, "default", beside such a type, and does not scale at all.
        raise unsupported("rope_scaling", scaling, "its kind under the name rope_type")
    result = {}
    for layer_type, field in theta_fields.items():
        found = dict(nested.get(layer_type) or {})
        if layer_type == FULL:
            found |= scaling
        if found.get("rope_theta") is None:
            found["rope_theta"] = data.get(field) if field else usual_theta[layer_type]
        if found["rope_theta"] is None:
            found["rope_theta"] = usual_theta[layer_type]
            warnings.warn(
                f"config.json has no base frequency for {layer_type}; {usual_theta[layer_type]:g} is assumed",
                CourseWarning,
                stacklevel=4,
            )
        outer = {"partial_rotary_factor": data.get("partial_rotary_factor")}
        rope = result[layer_type] = RopeParameters.from_hf({"rope_parameters": found} | outer)
        if rope.truncate is False:  # transformers 5 looks for it outside the sets, and so truncates all the same
            raise unsupported("truncate", False, "true, in a family with parameters for each type of layer")
    return result


def layered_to_hf(
    rope: Mapping[str, RopeParameters], theta_fields: Mapping[str, str | None], usual_theta: Mapping[str, float]
) -> dict[str, Any]:
    """The same backwards: as released checkpoints have it, or nested where the older form cannot say it."""
    full, sliding = rope[FULL], rope[SLIDING]
    same_theta = full.rope_theta == sliding.rope_theta == usual_theta[SLIDING]
    if sliding.rope_type == "default" and (theta_fields[SLIDING] or same_theta):
        return full.to_hf() | {
            field: rope[layer_type].rope_theta for layer_type, field in theta_fields.items() if field
        }
    return {"rope_parameters": {layer_type: one.to_nested() for layer_type, one in rope.items()}}


def unsupported(field: str, found: object, expected: str) -> ConfigError:
    return ConfigError(
        "config.json asks for rotary positions that are not implemented",
        field=field,
        expected=expected,
        found=repr(found),
        cause="another family or a newer variant; a plain RoPE in its place would give fluent nonsense",
        next_step="`python -m course_helpers families` lists what can be loaded",
    )


def default(rope: RopeParameters, frequencies: Tensor, head_dim: int) -> tuple[Tensor, float]:
    return frequencies, 1.0


def linear(rope: RopeParameters, frequencies: Tensor, head_dim: int) -> tuple[Tensor, float]:
    return frequencies / rope.factor, 1.0


def llama3(rope: RopeParameters, frequencies: Tensor, head_dim: int) -> tuple[Tensor, float]:
    """Llama 3.1: pairs whose wavelength exceeds the training context are slowed; a smooth blend in between."""
    wavelengths = 2 * math.pi / frequencies
    turns = rope.original_max_position_embeddings / wavelengths  # full turns within the original context
    blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blend = blend.clamp(0.0, 1.0)
    return (1 - blend) * frequencies / rope.factor + blend * frequencies, 1.0


def yarn(rope: RopeParameters, frequencies: Tensor, head_dim: int) -> tuple[Tensor, float]:
    """YaRN (arXiv 2309.00071): a linear ramp over the pairs, and cos and sin enlarged by the attention factor."""
    original = rope.original_max_position_embeddings

    def pair_with(turns: float) -> float:
        return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.rope_theta))

    low, high = pair_with(rope.beta_fast or 32.0), pair_with(rope.beta_slow or 1.0)
    if rope.truncate is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a ramp needs a width
    slowed = ((torch.arange(head_dim // 2, dtype=torch.float32, device="cpu") - low) / (high - low)).clamp(0, 1)
    factor = rope.attention_factor
    if factor is None:
        factor = 0.1 * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0
    return frequencies / rope.factor * slowed + frequencies * (1 - slowed), factor


KINDS = {"default": default, "linear": linear, "llama3": llama3, "yarn": yarn}


class RotaryEmbedding(nn.Module):
    """Turns positions into the cos and sin tables that `apply_rotary` needs."""

    def __init__(self, rope: RopeParameters, head_dim: int):
        super().__init__()
        # A plain attribute, not a buffer: it is exact in float32 whatever `model.to(bfloat16)` does, it is real even
        # when the model is built on the meta device, and it never appears in a state dict.
        self.inverse_frequencies, self.attention_factor = rope.inverse_frequencies(head_dim)

    def forward(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin, each (B, 1, T, D). Angles are computed in float32: bfloat16 cannot hold a position above 256."""
        if self.inverse_frequencies.device != positions_BT.device:
            self.inverse_frequencies = self.inverse_frequencies.to(positions_BT.device)
        angles = positions_BT[:, None, :, None].float() * self.inverse_frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return (angles.cos() * self.attention_factor).to(dtype), (angles.sin() * self.attention_factor).to(dtype)


def apply_rotary(x_BHTD: Tensor, cos_B1TD: Tensor, sin_B1TD: Tensor) -> Tensor:
    """Turn each pair (i, i + D/2): the "halves" layout of Hugging Face checkpoints.

    Meta's original files pair (2 i, 2 i + 1) instead; their query and key rows must be permuted when loaded.
    """
    first, second = x_BHTD.chunk(2, dim=-1)
    turned_BHTD = x_BHTD * cos_B1TD + torch.cat((-second, first), dim=-1) * sin_B1TD
    return turned_BHTD.to(x_BHTD.dtype)  # the tables may be more precise than x
