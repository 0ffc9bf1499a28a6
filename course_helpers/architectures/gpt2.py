"""GPT-2 (2019): the baseline that the other families are described against.

    norm        LayerNorm with weight and bias, before attention and before the feed-forward
    attention   multi-head, with biases; checkpoints hold query, key and value fused in one matrix, stored transposed
    position    a learned vector per position, added to the token embedding; 1024 of them, and none beyond
    feed-fwd    GELU (tanh form), 4 x wide, with biases
    head        tied to the token embedding

Shape suffixes: B batch, T new tokens, E model width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from .base import LanguageModel
from .cache import LayerCache
from .config import ModelConfig, even_head_dim
from .layers import Attention, AttentionContext, Embedding, FeedForward, Linear


@dataclass(frozen=True, kw_only=True)
class GPT2Config(ModelConfig):
    """Sizes of a GPT-2, by the names its config.json uses."""

    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int
    layer_norm_epsilon: float
    tie_word_embeddings: bool = True

    model_type: ClassVar[str] = "gpt2"
    architecture: ClassVar[str] = "GPT2LMHeadModel"
    accepted: ClassVar[Mapping[str, tuple]] = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }

    def __post_init__(self) -> None:
        even_head_dim(self.n_embd, self.n_head)
        super().__post_init__()

    @classmethod
    def derived(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"n_inner": 4 * data["n_embd"]} if isinstance(data.get("n_embd"), int) else {}

    def to_hf(self) -> dict[str, Any]:
        return super().to_hf() | {"activation_function": "gelu_new"}

    # The names that the other families use for the same sizes.
    hidden_size = property(lambda self: self.n_embd)
    num_hidden_layers = property(lambda self: self.n_layer)
    num_attention_heads = property(lambda self: self.n_head)
    num_key_value_heads = property(lambda self: self.n_head)
    head_dim = property(lambda self: self.n_embd // self.n_head)
    max_position_embeddings = property(lambda self: self.n_positions)


class Block(nn.Module):
    def __init__(self, config: GPT2Config):
        super().__init__()
        width, heads = config.n_embd, config.n_head
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_epsilon)
        self.attention = Attention(width, heads, heads, config.head_dim, bias=True)
        self.feed_forward_norm = nn.LayerNorm(width, eps=config.layer_norm_epsilon)
        self.feed_forward = FeedForward(width, config.n_inner)

    def forward(self, x_BTE: Tensor, context: AttentionContext, cache: LayerCache | None) -> Tensor:
        x_BTE = context.needed(x_BTE) + self.attention(self.attention_norm(x_BTE), context, cache)
        return x_BTE + self.feed_forward(self.feed_forward_norm(x_BTE))


class GPT2Model(LanguageModel):
    def __init__(self, config: GPT2Config):
        super().__init__()
        self.config = config
        self.token_embedding = Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = Embedding(config.n_positions, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        tied = config.tie_word_embeddings
        self.output_head = None if tied else Linear(config.n_embd, config.vocab_size, bias=False)

    def check_length(self, prompt_tokens: int, new_tokens: int = 0) -> None:
        """Raises ValueError: a position that was never learned has no vector."""
        limit, tokens = self.config.n_positions, prompt_tokens + new_tokens
        if tokens > limit:
            raise ValueError(
                f"GPT-2 has learned {limit} positions and has none for token {tokens} "
                f"({prompt_tokens} of prompt, {new_tokens} new): use a shorter prompt or fewer new tokens"
            )

    def check_position(self, tokens: int) -> None:
        self.check_length(tokens)

    def embed(self, token_ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        return self.token_embedding(token_ids_BT) + self.position_embedding(positions_BT)


def preset(n_embd: int, n_layer: int, n_head: int) -> GPT2Config:
    return GPT2Config(
        vocab_size=50257,
        n_positions=1024,
        n_embd=n_embd,
        n_layer=n_layer,
        n_head=n_head,
        n_inner=4 * n_embd,
        layer_norm_epsilon=1e-5,
        bos_token_id=50256,
        eos_token_id=50256,
    )


#: The released sizes, by hub id.
PRESETS = {
    "openai-community/gpt2": preset(768, 12, 12),
    "openai-community/gpt2-medium": preset(1024, 24, 16),
    "openai-community/gpt2-large": preset(1280, 36, 20),
    "openai-community/gpt2-xl": preset(1600, 48, 25),
}
