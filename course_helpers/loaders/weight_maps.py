"""Which tensor of a checkpoint becomes which parameter of ours: tables, read by one small interpreter.

A row's left side is a name in the checkpoint, its right side the name of our parameter, or a `Rule` where the tensor
must be turned, cut or put into a part of one. Placeholders: `{trunk}` is the prefix some programs put before
everything but the head (see `WeightMap.trunks`), `{layer}` counts the blocks, `{expert}` the experts of a block.
Every rule can be run backwards, so the same table writes checkpoints, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..architectures.config import ModelConfig


@dataclass(frozen=True)
class Rule:
    """How one checkpoint tensor becomes one or more parameters, or a part of one."""

    #: Several targets: the checkpoint holds them one after the other along the output dimension.
    targets: tuple[str, ...]
    #: The checkpoint stores (input, output), as GPT-2's Conv1D does; nn.Linear wants (output, input).
    transpose: bool = False
    #: The checkpoint has a dimension of length 1 before the others, as TensorFlow's convolutions of width 1 do.
    squeeze: bool = False
    #: Set: rows of a head come in pairs (2 i, 2 i + 1), as in Meta's files; ours in halves (i, i + head_dim / 2).
    interleaved: bool = False
    #: Set: the tensor is one of several equal blocks of rows, (which, of how many), of one expert's matrix.
    rows: tuple[int, int] | None = None

    # Filled in when the table is expanded for a model.
    expert: int | None = None
    head_dim: int = 0

    def to_ours(self, tensor: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
        """The values that one checkpoint tensor holds for parameters of the given shapes. Views wherever possible."""
        if self.squeeze:
            tensor = tensor.squeeze(0)
        if self.transpose:
            tensor = tensor.T
        if self.interleaved:
            tensor = tensor.unflatten(0, (-1, self.head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)
        return list(tensor.split([self.shape_in(shape)[0] for shape in shapes])) if self.targets[1:] else [tensor]

    def to_theirs(self, parameters: Sequence[Tensor]) -> Tensor:
        """The checkpoint tensor that holds these parameters: `to_ours` backwards."""
        tensor = torch.cat(list(parameters)) if len(parameters) > 1 else self.region(parameters[0])
        if self.interleaved:
            tensor = tensor.unflatten(0, (-1, 2, self.head_dim // 2)).transpose(1, 2).flatten(0, 2)
        tensor = tensor.T.contiguous() if self.transpose else tensor
        return tensor.unsqueeze(0) if self.squeeze else tensor

    def region(self, parameter: Tensor) -> Tensor:
        """The part of a parameter that this rule is about, as a view: all of it, or some rows of one expert."""
        if self.expert is None:
            return parameter
        which, count = self.rows
        return parameter[self.expert].chunk(count)[which]

    def shape_in(self, shape: torch.Size) -> tuple[int, ...]:
        """The shape of that part."""
        return tuple(shape) if self.expert is None else (shape[1] // self.rows[1], *shape[2:])

    def source_shape(self, shapes: Sequence[torch.Size]) -> tuple[int, ...]:
        """The shape that the checkpoint tensor must have, given the shapes of our parameters."""
        parts = [self.shape_in(shape) for shape in shapes]
        shape = (sum(part[0] for part in parts), *parts[0][1:])
        shape = shape[::-1] if self.transpose else shape
        return (1, *shape) if self.squeeze else shape

    @property
    def changes(self) -> bool:
        """Whether the tensor cannot be a parameter as it is: it is turned, cut, reordered, or put into a larger one."""
        return self.transpose or self.interleaved or self.expert is not None or len(self.targets) > 1

    def describe(self) -> str:
        """What is done to the tensor, in a word or two, for reports."""
        steps = ["squeeze"] * self.squeeze + ["transpose"] * self.transpose
        steps += [f"split in {len(self.targets)}"] * (len(self.targets) > 1)
        steps += ["pairs to halves"] * self.interleaved + [f"into expert {self.expert}"] * (self.expert is not None)
        return ", ".join(steps) or "as it is"


@dataclass(frozen=True)
class WeightMap:
    """One layout in which a family's checkpoints are written."""

    layout: str
    #: Name in the checkpoint -> name of our parameter, or a rule; None where the layout this one is derived from has
    #: a tensor and this one has not.
    rows: Mapping[str, str | Rule | None]
    #: What `{trunk}` may stand for. The first is what is written when a checkpoint is saved.
    trunks: tuple[str, ...] = ("",)
    #: Tensors that are left out on purpose: name pattern -> the reason. A pattern that ends in "*" is a prefix.
    dropped: Mapping[str, str] = field(default_factory=dict)

    def derive(self, rows: Mapping[str, str | Rule | None], **others: Any) -> "WeightMap":
        """This layout with some rows added, replaced or (None) taken away."""
        return replace(self, rows=self.rows | rows, **others)

    def expand(self, config: ModelConfig, trunk: str | None = None) -> dict[str, Rule]:
        """Every checkpoint tensor of a model of this size, in order, with its rule and its targets filled in."""
        rules = {}
        for pattern, row in self.rows.items():
            if row is None:
                continue
            rule = row if isinstance(row, Rule) else Rule((row,))
            head_dim = config.head_dim if rule.interleaved else 0
            for numbers in placeholders(pattern, config):
                targets = tuple(target.format(**numbers) for target in rule.targets)
                name = pattern.format(trunk=self.trunks[0] if trunk is None else trunk, **numbers)
                rules[name] = replace(rule, targets=targets, expert=numbers.get("expert"), head_dim=head_dim)
        return rules

    def expand_dropped(self, config: ModelConfig, trunk: str, names: Iterable[str]) -> dict[str, str]:
        """Those of the names that this layout leaves out on purpose, each with the reason."""
        exact, prefixes = {}, {}
        for pattern, reason in self.dropped.items():
            for numbers in placeholders(pattern, config):
                name = pattern.format(trunk=trunk, **numbers)
                (prefixes if name.endswith("*") else exact)[name.rstrip("*")] = reason
        within = {name: reason for name in names for start, reason in prefixes.items() if name.startswith(start)}
        return exact | within


def placeholders(pattern: str, config: ModelConfig) -> list[dict[str, int]]:
    """What the numbered placeholders of a pattern stand for, in order."""
    numbers: list[dict[str, int]] = [{}]
    for name, count in (("layer", config.num_hidden_layers), ("expert", getattr(config, "num_experts", 0))):
        if f"{{{name}}}" in pattern:
            numbers = [outer | {name: index} for outer in numbers for index in range(count)]
    return numbers


QUERY_KEY_VALUE = {
    kind: tuple(f"blocks.{{layer}}.attention.{part}.{kind}" for part in ("query", "key", "value"))
    for kind in ("weight", "bias")
}

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
        "{trunk}h.{layer}.attn.c_attn.weight": Rule(QUERY_KEY_VALUE["weight"], transpose=True),
        "{trunk}h.{layer}.attn.c_attn.bias": Rule(QUERY_KEY_VALUE["bias"]),
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

#: GPT-2 as OpenAI published it. Its matrices are the kernels of convolutions one token wide, (1, input, output): this
#: is where Conv1D comes from. None of OpenAI's files has a head of its own; the row for one is there to be missed when
#: a config asks for it.
GPT2_TF = WeightMap(
    layout="openai",
    rows={
        "model/wte": "token_embedding.weight",
        "model/wpe": "position_embedding.weight",
        "model/h{layer}/ln_1/g": "blocks.{layer}.attention_norm.weight",
        "model/h{layer}/ln_1/b": "blocks.{layer}.attention_norm.bias",
        "model/h{layer}/attn/c_attn/w": Rule(QUERY_KEY_VALUE["weight"], transpose=True, squeeze=True),
        "model/h{layer}/attn/c_attn/b": Rule(QUERY_KEY_VALUE["bias"]),
        "model/h{layer}/attn/c_proj/w": Rule(("blocks.{layer}.attention.output.weight",), transpose=True, squeeze=True),
        "model/h{layer}/attn/c_proj/b": "blocks.{layer}.attention.output.bias",
        "model/h{layer}/ln_2/g": "blocks.{layer}.feed_forward_norm.weight",
        "model/h{layer}/ln_2/b": "blocks.{layer}.feed_forward_norm.bias",
        "model/h{layer}/mlp/c_fc/w": Rule(("blocks.{layer}.feed_forward.up.weight",), transpose=True, squeeze=True),
        "model/h{layer}/mlp/c_fc/b": "blocks.{layer}.feed_forward.up.bias",
        "model/h{layer}/mlp/c_proj/w": Rule(("blocks.{layer}.feed_forward.down.weight",), transpose=True, squeeze=True),
        "model/h{layer}/mlp/c_proj/b": "blocks.{layer}.feed_forward.down.bias",
        "model/ln_f/g": "final_norm.weight",
        "model/ln_f/b": "final_norm.bias",
        "model/lm_head": "output_head.weight",
    },
)
#: What a training run saves beside the weights: for each of them two averages that Adam keeps, and its progress.
GPT2_TF = GPT2_TF.derive(
    {},
    dropped={
        f"{name}/{slot}": "an average of gradients that Adam keeps, for training only"
        for name in GPT2_TF.rows
        for slot in ("Adam", "Adam_1")
    }
    | dict.fromkeys(("beta1_power", "beta2_power", "global_step"), "how far the training was, for training only"),
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

#: Llama 2 and 3 as Meta distributes them. Rows of the query and key matrices are in the order that Meta's rotary
#: positions want: forget to reorder them, and every shape still fits.
LLAMA_META = WeightMap(
    layout="meta",
    rows={
        "tok_embeddings.weight": "token_embedding.weight",
        "layers.{layer}.attention_norm.weight": "blocks.{layer}.attention_norm.weight",
        "layers.{layer}.attention.wq.weight": Rule(("blocks.{layer}.attention.query.weight",), interleaved=True),
        "layers.{layer}.attention.wk.weight": Rule(("blocks.{layer}.attention.key.weight",), interleaved=True),
        "layers.{layer}.attention.wv.weight": "blocks.{layer}.attention.value.weight",
        "layers.{layer}.attention.wo.weight": "blocks.{layer}.attention.output.weight",
        "layers.{layer}.ffn_norm.weight": "blocks.{layer}.feed_forward_norm.weight",
        "layers.{layer}.feed_forward.w1.weight": "blocks.{layer}.feed_forward.gate.weight",
        "layers.{layer}.feed_forward.w3.weight": "blocks.{layer}.feed_forward.up.weight",
        "layers.{layer}.feed_forward.w2.weight": "blocks.{layer}.feed_forward.down.weight",
        "norm.weight": "final_norm.weight",
        "output.weight": "output_head.weight",
    },
    dropped=dict.fromkeys(
        ("rope.freqs", "layers.{layer}.attention.inner_attention.rope.freqs"),
        "rotary frequencies, computed from params.json",
    ),
)

QWEN3 = LLAMA.derive(
    {
        "{trunk}layers.{layer}.self_attn.q_norm.weight": "blocks.{layer}.attention.query_norm.weight",
        "{trunk}layers.{layer}.self_attn.k_norm.weight": "blocks.{layer}.attention.key_norm.weight",
    }
)

ROUTER = {"{trunk}layers.{layer}.mlp.gate.weight": "blocks.{layer}.feed_forward.router.weight"}
GATE_UP, DOWN = ("blocks.{layer}.feed_forward.experts.gate_up",), ("blocks.{layer}.feed_forward.experts.down",)

#: Mixture of experts as the hub has it, three matrices an expert, and as transformers 5 holds it in memory, two
#: tensors a layer. The rows of QWEN3 that are inherited serve the layers that have no experts (`mlp_only_layers`).
QWEN3_MOE = QWEN3.derive(
    ROUTER
    | {
        "{trunk}layers.{layer}.mlp.experts.{expert}.gate_proj.weight": Rule(GATE_UP, rows=(0, 2)),
        "{trunk}layers.{layer}.mlp.experts.{expert}.up_proj.weight": Rule(GATE_UP, rows=(1, 2)),
        "{trunk}layers.{layer}.mlp.experts.{expert}.down_proj.weight": Rule(DOWN, rows=(0, 1)),
    }
)
QWEN3_MOE_FUSED = QWEN3.derive(
    ROUTER
    | {
        "{trunk}layers.{layer}.mlp.experts.gate_up_proj": Rule(GATE_UP),
        "{trunk}layers.{layer}.mlp.experts.down_proj": Rule(DOWN),
    },
    layout="transformers 5, fused experts",
)

#: Mind `post_attention_layernorm`: in Llama it comes before the feed-forward; here, and in OLMo 3, it really comes
#: after attention.
GEMMA3 = QWEN3.derive(
    {
        "{trunk}layers.{layer}.post_attention_layernorm.weight": "blocks.{layer}.attention_post_norm.weight",
        "{trunk}layers.{layer}.pre_feedforward_layernorm.weight": "blocks.{layer}.feed_forward_norm.weight",
        "{trunk}layers.{layer}.post_feedforward_layernorm.weight": "blocks.{layer}.feed_forward_post_norm.weight",
    },
    trunks=("model.", "", "language_model.model.", "model.language_model."),
    dropped=LLAMA.dropped
    | dict.fromkeys(
        ("vision_tower.*", "multi_modal_projector.*", "model.vision_tower.*", "model.multi_modal_projector.*"),
        "the part that sees pictures: only the language part is loaded",
    ),
)

OLMO3 = QWEN3.derive(
    {
        "{trunk}layers.{layer}.input_layernorm.weight": None,
        "{trunk}layers.{layer}.post_attention_layernorm.weight": "blocks.{layer}.attention_post_norm.weight",
        "{trunk}layers.{layer}.post_feedforward_layernorm.weight": "blocks.{layer}.feed_forward_post_norm.weight",
    }
)
