"""Which tensor of a checkpoint becomes which parameter of ours: a table for each layout of each family.

A row's left side is a name in the checkpoint, its right side the name of our parameter, or a `Rule` where the tensor
must be turned, cut or put into a part of one.
"""

from .rules import Rule, WeightMap

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
