"""Which tensor of a checkpoint becomes which parameter of ours: tables, read by one small interpreter.

A row's left side is a name in the checkpoint, its right side the name of our parameter, or a `Rule` where the tensor
must be turned or cut on the way. Placeholders: `{trunk}` is the prefix some programs put before everything but the
head (see `WeightMap.trunks`), `{layer}` counts the blocks. Every rule can be run backwards, so the same table writes
checkpoints, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..architectures.config import ModelConfig


@dataclass(frozen=True)
class Rule:
    """How one checkpoint tensor becomes one or more parameters."""

    #: Several targets: the checkpoint holds them one after the other along the output dimension.
    targets: tuple[str, ...]
    #: The checkpoint stores (input, output), as GPT-2's Conv1D does; nn.Linear wants (output, input).
    transpose: bool = False

    def to_ours(self, tensor: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
        """The parameters, of the given shapes, that one checkpoint tensor holds. Views wherever possible."""
        if self.transpose:
            tensor = tensor.T
        return list(tensor.split([shape[0] for shape in shapes]))

    def to_theirs(self, parameters: Sequence[Tensor]) -> Tensor:
        """The checkpoint tensor that holds these parameters: `to_ours` backwards."""
        tensor = torch.cat(list(parameters)) if len(parameters) > 1 else parameters[0]
        return tensor.T.contiguous() if self.transpose else tensor

    def source_shape(self, shapes: Sequence[torch.Size]) -> tuple[int, ...]:
        """The shape that the checkpoint tensor must have, given the shapes of our parameters."""
        shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        return shape[::-1] if self.transpose else shape

    @property
    def changes(self) -> bool:
        """Whether the tensor is turned or cut on the way."""
        return self.transpose or len(self.targets) > 1

    def describe(self) -> str:
        """What is done to the tensor, in a word or two, for reports."""
        steps = ["transpose"] * self.transpose + [f"split in {len(self.targets)}"] * (len(self.targets) > 1)
        return ", ".join(steps) or "as it is"


@dataclass(frozen=True)
class WeightMap:
    """One layout in which a family's checkpoints are written."""

    layout: str
    rows: Mapping[str, str | Rule]
    #: What `{trunk}` may stand for. The first is what is written when a checkpoint is saved.
    trunks: tuple[str, ...] = ("",)
    #: Tensors that are left out on purpose: name pattern -> the reason.
    dropped: Mapping[str, str] = field(default_factory=dict)

    def expand(self, config: ModelConfig, trunk: str | None = None) -> dict[str, Rule]:
        """Every checkpoint tensor of a model of this size, in order, with its rule and its targets filled in."""
        rules = {}
        for pattern, row in self.rows.items():
            rule = row if isinstance(row, Rule) else Rule((row,))
            for numbers in layer_numbers(pattern, config):
                targets = tuple(target.format(**numbers) for target in rule.targets)
                name = pattern.format(trunk=self.trunks[0] if trunk is None else trunk, **numbers)
                rules[name] = Rule(targets, rule.transpose)
        return rules

    def expand_dropped(self, config: ModelConfig, trunk: str) -> dict[str, str]:
        """Names of the tensors that this layout leaves out on purpose, each with the reason."""
        return {
            pattern.format(trunk=trunk, **numbers): reason
            for pattern, reason in self.dropped.items()
            for numbers in layer_numbers(pattern, config)
        }


def layer_numbers(pattern: str, config: ModelConfig) -> Iterable[dict[str, int]]:
    if "{layer}" not in pattern:
        return [{}]
    return [{"layer": layer} for layer in range(config.num_hidden_layers)]


#: GPT-2 as Hugging Face distributes it. The matrices are Conv1D weights, stored (input, output), and query, key and
#: value are one tensor. `attn.c_proj` is square: forget its transpose and every shape still fits.
GPT2 = WeightMap(
    layout="huggingface",
    trunks=("", "transformer."),
    rows={
        "{trunk}wte.weight": "token_embedding.weight",
        "{trunk}wpe.weight": "position_embedding.weight",
        "{trunk}h.{layer}.ln_1.weight": "blocks.{layer}.attention_norm.weight",
        "{trunk}h.{layer}.ln_1.bias": "blocks.{layer}.attention_norm.bias",
        "{trunk}h.{layer}.attn.c_attn.weight": Rule(
            (
                "blocks.{layer}.attention.query.weight",
                "blocks.{layer}.attention.key.weight",
                "blocks.{layer}.attention.value.weight",
            ),
            transpose=True,
        ),
        "{trunk}h.{layer}.attn.c_attn.bias": Rule(
            (
                "blocks.{layer}.attention.query.bias",
                "blocks.{layer}.attention.key.bias",
                "blocks.{layer}.attention.value.bias",
            ),
        ),
        "{trunk}h.{layer}.attn.c_proj.weight": Rule(("blocks.{layer}.attention.output.weight",), transpose=True),
        "{trunk}h.{layer}.attn.c_proj.bias": "blocks.{layer}.attention.output.bias",
        "{trunk}h.{layer}.ln_2.weight": "blocks.{layer}.feed_forward_norm.weight",
        "{trunk}h.{layer}.ln_2.bias": "blocks.{layer}.feed_forward_norm.bias",
        "{trunk}h.{layer}.mlp.c_fc.weight": Rule(("blocks.{layer}.feed_forward.up.weight",), transpose=True),
        "{trunk}h.{layer}.mlp.c_fc.bias": "blocks.{layer}.feed_forward.up.bias",
        "{trunk}h.{layer}.mlp.c_proj.weight": Rule(("blocks.{layer}.feed_forward.down.weight",), transpose=True),
        "{trunk}h.{layer}.mlp.c_proj.bias": "blocks.{layer}.feed_forward.down.bias",
        "{trunk}ln_f.weight": "final_norm.weight",
        "{trunk}ln_f.bias": "final_norm.bias",
        "lm_head.weight": "output_head.weight",
    },
    dropped={
        "{trunk}h.{layer}.attn.bias": "the causal mask, a constant that old files carry under a misleading name",
        "{trunk}h.{layer}.attn.masked_bias": "the value written into masked scores, a constant",
    },
)

#: Llama 2, 3, 3.1, 3.2 as Hugging Face distributes them.
LLAMA = WeightMap(
    layout="huggingface",
    trunks=("model.", ""),
    rows={
        "{trunk}embed_tokens.weight": "token_embedding.weight",
        "{trunk}layers.{layer}.input_layernorm.weight": "blocks.{layer}.attention_norm.weight",
        "{trunk}layers.{layer}.self_attn.q_proj.weight": "blocks.{layer}.attention.query.weight",
        "{trunk}layers.{layer}.self_attn.k_proj.weight": "blocks.{layer}.attention.key.weight",
        "{trunk}layers.{layer}.self_attn.v_proj.weight": "blocks.{layer}.attention.value.weight",
        "{trunk}layers.{layer}.self_attn.o_proj.weight": "blocks.{layer}.attention.output.weight",
        "{trunk}layers.{layer}.post_attention_layernorm.weight": "blocks.{layer}.feed_forward_norm.weight",
        "{trunk}layers.{layer}.mlp.gate_proj.weight": "blocks.{layer}.feed_forward.gate.weight",
        "{trunk}layers.{layer}.mlp.up_proj.weight": "blocks.{layer}.feed_forward.up.weight",
        "{trunk}layers.{layer}.mlp.down_proj.weight": "blocks.{layer}.feed_forward.down.weight",
        "{trunk}norm.weight": "final_norm.weight",
        "lm_head.weight": "output_head.weight",
    },
    dropped={
        "{trunk}layers.{layer}.self_attn.rotary_emb.inv_freq": "rotary frequencies, computed from config.json",
    },
)
