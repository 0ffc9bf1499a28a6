"""Reading a `config.json` strictly: what every family's `Config` shares.

A config that is read loosely is how a model goes wrong in silence: a missing epsilon becomes a library's default, an
unknown RoPE type becomes plain RoPE, a bias flag is ignored. So a field that changes the numbers is either read or
refused here, and never guessed.
"""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Self

from ..errors import ConfigError

TokenIds = int | tuple[int, ...] | None

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Base of every family's config. Field names are those of Hugging Face's `config.json`.

    A dataclass field without a default must stand in `config.json`; one with a default may be left out there.
    """

    vocab_size: int
    bos_token_id: int | None = None
    eos_token_id: TokenIds = None
    pad_token_id: int | None = None

    #: `model_type` in config.json, other values of it that stand for checkpoints with such a model inside, and the
    #: class that transformers builds for it.
    model_type: ClassVar[str]
    also: ClassVar[tuple[str, ...]] = ()
    architecture: ClassVar[str]
    #: Fields that would change the numbers in a way the family's file does not implement: name -> values it accepts.
    #: A field that is absent or null is accepted: transformers then takes the first value listed.
    accepted: ClassVar[Mapping[str, tuple]] = {}

    #: How many positions the sliding layers look back over; None in a family that has no such layers.
    sliding_window = None

    @classmethod
    def model_types(cls) -> tuple[str, ...]:
        """Every `model_type` that this class reads."""
        return (cls.model_type, *cls.also)

    @property
    def layer_plan(self) -> tuple[str, ...]:
        """The type of every layer, from the first: "full_attention" or "sliding_attention"."""
        return getattr(self, "layer_types", (FULL,) * self.num_hidden_layers)

    def window(self, layer_type: str) -> int | None:
        """How many positions a query in a layer of this type sees, its own included; None: all before it."""
        return self.sliding_window if layer_type == SLIDING else None

    def __post_init__(self) -> None:
        heads, shared = self.num_attention_heads, self.num_key_value_heads
        if heads % shared:
            raise ConfigError(
                "the query heads cannot be shared out evenly among the key/value heads",
                field="num_key_value_heads",
                expected=f"a divisor of the {heads} query heads",
                found=shared,
                cause="a config.json of another size, or edited by hand",
                next_step="take config.json from the same place as the weights",
            )
        if len(self.layer_plan) != self.num_hidden_layers or not {FULL, SLIDING}.issuperset(self.layer_plan):
            raise ConfigError(
                "the list of layer types does not fit the model",
                field="layer_types",
                expected=f"{self.num_hidden_layers} times {FULL!r} or {SLIDING!r}",
                found=f"{len(self.layer_plan)} of {', '.join(map(repr, dict.fromkeys(self.layer_plan)))}",
                cause="a config.json of another size, or edited by hand",
                next_step="take config.json from the same place as the weights",
            )
        if SLIDING in self.layer_plan and (self.sliding_window or 0) < 1:
            raise ConfigError(
                "there are sliding layers, but nothing says how far they look back",
                field="sliding_window",
                expected="a number of positions, from 1 up",
                found="nothing" if self.sliding_window is None else repr(self.sliding_window),
                cause="an incomplete config.json; with Qwen3, use_sliding_window may be false",
                next_step="take config.json from the same place as the weights",
            )

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Self:
        """Build the config from a parsed `config.json` (both the v4 and the v5 dialect of transformers).

        Raises ConfigError if a needed field is missing, has the wrong type, or asks for something unsupported.
        """
        cls.check_accepted(data)
        return cls(**cls.read_fields(data))

    @classmethod
    def check_accepted(cls, data: Mapping[str, Any]) -> None:
        """Refuse values that would be silently ignored otherwise. Raises ConfigError."""
        check_counts(data)
        everywhere = {"model_type": (cls.model_type,), "quantization_config": (None,)}
        for name, values in (everywhere | dict(cls.accepted)).items():
            if data.get(name) is not None and data[name] not in values:
                raise ConfigError(
                    f"config.json asks for something that {cls.__name__} does not implement",
                    field=name,
                    expected=" or ".join(repr(value) for value in values),
                    found=repr(data[name]),
                    cause="the checkpoint belongs to another family, or to a variant of this one",
                    next_step="`python -m course_helpers families` lists what can be loaded",
                )

    @classmethod
    def read_fields(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """The dataclass's own fields, type-checked. Raises ConfigError for one that is missing or of a wrong type."""
        values = {}
        for field in fields(cls):
            value = data.get(field.name)
            if value is None:
                if field.default is MISSING and field.name not in cls.derived(data):
                    raise ConfigError(
                        "config.json lacks a field that changes the numbers",
                        field=field.name,
                        expected=f"a value of type {getattr(field.type, '__name__', field.type)}",
                        found="nothing",
                        cause="an incomplete config.json, or one of another family",
                        next_step="take config.json from the same place as the weights",
                    )
                value = cls.derived(data).get(field.name, field.default)
            values[field.name] = checked(field.name, field.type, value)
        return values

    @classmethod
    def derived(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Fields whose value follows from other fields when config.json leaves them out."""
        return {}

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` that transformers reads back into the same model."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        return {"architectures": [self.architecture], "model_type": self.model_type, **own}


#: No size of any model is larger. Where config.json counts parts that must each be built, the limit is lower: the mere
#: list of a billion layers would fill the memory.
LARGEST = 2**31 - 1
MOST_PARTS = 10_000
COUNTED = ("num_hidden_layers", "n_layer", "num_experts", "num_local_experts")


def check_counts(data: Mapping[str, Any]) -> None:
    """Refuse numbers of parts that nobody could build, before anything is worked out from them. Raises ConfigError."""
    for name in COUNTED:
        if type(data.get(name)) is int and data[name] > MOST_PARTS:
            raise wrong_value(name, f"at most {MOST_PARTS}", data[name])


def checked(name: str, kind: Any, value: Any) -> Any:
    """`value`, if it is of the field's type. Raises ConfigError otherwise."""
    if isinstance(value, list) and kind in (TokenIds, tuple[str, ...], tuple[int, ...]):
        value = tuple(value)
    expected = {
        int: f"a whole number from 1 to {LARGEST}",
        float: "a finite number above 0",
        bool: "true or false",
        tuple[str, ...]: "a list of strings",
        tuple[int, ...]: "a list of whole numbers",
        int | None: "a whole number or null",
        TokenIds: "a token id, a list of them, or null",
    }
    wrong = {
        int: not is_whole(value) or value < 1,
        float: type(value) not in (int, float) or not 0 < value <= sys.float_info.max,
        bool: type(value) is not bool,
        tuple[str, ...]: not is_tuple_of(str, value),
        tuple[int, ...]: not is_tuple_of(int, value),
        int | None: value is not None and not is_whole(value),
        TokenIds: value is not None and not is_whole(value) and not is_tuple_of(int, value),
    }
    if wrong.get(kind, False):
        raise wrong_value(name, expected[kind], value)
    return float(value) if kind is float else value


def wrong_value(name: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(
        "config.json holds a value that cannot be right",
        field=name,
        expected=expected,
        found=repr(value)[:200],
        cause="the file was edited by hand, or written by another program",
        next_step="take config.json from the same place as the weights",
    )


def is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= LARGEST


def is_tuple_of(kind: type, value: Any) -> bool:
    return type(value) is tuple and all(type(item) is kind for item in value)


def even_head_dim(width: object, heads: object) -> int | None:
    """Width per head, where config.json leaves it to be worked out. Raises ConfigError if it does not come out even."""
    if not (isinstance(width, int) and isinstance(heads, int) and heads > 0):
        return None  # the field itself is at fault, and is reported as such
    if width % heads:
        raise ConfigError(
            "the model width cannot be shared out evenly among the heads",
            field="num_attention_heads",
            expected=f"a divisor of the width {width}, or an explicit head_dim",
            found=heads,
            cause="a config.json of another size, or edited by hand",
            next_step="take config.json from the same place as the weights",
        )
    return width // heads
