"""The checks that catch the traps. Each returns None where all is well, and otherwise what it saw.

They do in small what the tests of their titles do at length; here they can be run with a mistake put in.
"""

import copy
import functools
import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from course_helpers import CheckpointError, generate, load_model, load_tokenizer, load_weights
from course_helpers.architectures import base
from course_helpers.architectures.config import FULL, SLIDING
from course_helpers.loaders.sources import BUNDLED
from tests.tiny_models import Data, logits_of, random_ids, theirs
from tests.traps.trap import Check

TOKENS = 40  # beyond every window and every original context of the examples


@functools.cache
def cached_reference(config: str) -> nn.Module:
    return theirs(json.loads(config))


def reference(config: Data) -> nn.Module:
    """transformers' model of a config, made once."""
    return cached_reference(json.dumps(config))


def apart(one: Tensor, other: Tensor, what: str) -> str | None:
    difference = (one - other).abs().max().item()
    return None if difference <= 1e-5 else f"{what} differ by {difference:.1e}"


def parity(config: Data) -> str | None:
    """logits equal those of transformers"""
    ids = random_ids(config, 2, TOKENS)
    model = load_model(reference(config), config=config)
    return apart(logits_of(model, ids), logits_of(reference(config), ids), "logits")


def cached(config: Data) -> str | None:
    """cached as uncached"""
    model, ids = load_model(reference(config), config=config), random_ids(config, 2, TOKENS)
    cache = model.make_cache(2, TOKENS)
    sizes = [9, 1, 1, 4, *[1] * (TOKENS - 15)]
    parts = [logits_of(model, part, cache=cache) for part in ids.split(sizes, dim=1)]
    return apart(torch.cat(parts, dim=1), logits_of(model, ids), "logits with and without a cache")


def ragged(config: Data) -> str | None:
    """a left-padded row as alone"""
    model, ids = load_model(reference(config), config=config), random_ids(config, 2, TOKENS)
    padded = logits_of(model, ids, left_padding_B=torch.tensor([0, 11]))
    return apart(padded[1, 11:], logits_of(model, ids[1:, 11:])[0], "logits of a padded row and of the row alone")


@functools.cache
def half_precision(config: str) -> nn.Module:
    """transformers' model with bfloat16 weights; as when it is loaded so, its rotary frequencies stay as they are."""
    model = copy.deepcopy(cached_reference(config))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    return model


def same_bits(ours: list[Tensor], expected: list[Tensor], what: str) -> str | None:
    wrong = sum(int((one != other).sum()) for one, other in zip(ours, expected, strict=True))
    return None if wrong == 0 else f"{wrong} of {sum(value.numel() for value in expected)} {what} differ"


def embedding_bits(config: Data) -> str | None:
    """embeddings in bfloat16, to the bit"""
    expected, ids = half_precision(json.dumps(config)), random_ids(config, 1, TOKENS)
    model = load_model(expected, config=config)
    with torch.no_grad():
        return same_bits(
            [model.embed(ids, torch.arange(TOKENS)[None])], [expected.get_input_embeddings()(ids)], "values"
        )


def norm_bits(config: Data) -> str | None:
    """norms in bfloat16, to the bit"""
    expected = half_precision(json.dumps(config))
    model = load_model(expected, config=config)
    x_BTE = torch.randn(1, TOKENS, config["hidden_size"], generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        return same_bits([model.final_norm(x_BTE)], [expected.model.norm(x_BTE)], "values")


def table_bits(config: Data) -> str | None:
    """rotary tables of far positions in bfloat16, to the bit"""
    expected = half_precision(json.dumps(config))
    model, positions = load_model(expected, config=config), torch.arange(4000, 4100)[None]
    x = torch.zeros(1, dtype=torch.bfloat16)
    nested = {FULL, SLIDING} <= expected.config.rope_parameters.keys()
    found, wanted = [], []
    for layer_type in model.rotary_embeddings:
        found += [table[:, 0] for table in model.rotation(layer_type, positions, model.dtype)]
        wanted += expected.model.rotary_emb(x, positions, *[layer_type] * nested)
    return same_bits(found, wanted, "values")


def meta_layout(config: Data) -> str | None:
    """Meta's layout gives the logits of Hugging Face's"""
    names = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv"}
    names |= {"self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3"}
    names |= {"mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm", "lm_head": "output"}
    names |= {"post_attention_layernorm": "ffn_norm", "model.embed_tokens": "tok_embeddings", "model.": ""}
    tensors = {}
    for name, tensor in reference(config).state_dict().items():
        if "q_proj" in name or "k_proj" in name:  # halves to pairs, the reshaping of Meta's converter backwards
            head_dim = reference(config).config.head_dim
            tensor = tensor.view(-1, 2, head_dim // 2, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        for theirs_part, metas_part in names.items():
            name = name.replace(theirs_part, metas_part)
        tensors[name] = tensor
    ids = random_ids(config, 2, TOKENS)
    found = logits_of(load_model(tensors, config=config), ids)
    return apart(found, logits_of(reference(config), ids), "logits of the two layouts")


def tied(config: Data) -> str | None:
    """a tied head is the embedding, whatever the file holds"""
    model = load_model(reference(config), config=config)
    if "lm_head.weight" not in reference(config).state_dict():
        return "the file that is to be tried holds no head"
    one = model.head_weight.data_ptr() == model.token_embedding.weight.data_ptr()
    surplus = model.num_parameters() - sum(parameter.numel() for parameter in reference(config).parameters())
    return None if one and not surplus else f"the head is a copy, and {surplus} parameters are too many"


def refused(tensors: dict[str, Tensor], config: Data) -> str | None:
    try:
        load_model(tensors, config=config)
    except CheckpointError:
        return None
    return "it was loaded without a word"


def missing_refused(config: Data) -> str | None:
    """the loader refuses a missing tensor"""
    tensors = reference(config).state_dict()
    return refused({name: tensors[name] for name in tensors if "1.mlp.up_proj" not in name}, config)


def bias_refused(config: Data) -> str | None:
    """the loader refuses Qwen2's biases"""
    tensors = reference(config).state_dict()
    biases = {name.replace("weight", "bias"): tensor[:, 0] for name, tensor in tensors.items() if "q_proj" in name}
    return refused(tensors | biases, config)


def extra_layers_refused(config: Data) -> str | None:
    """the loader refuses more layers than the config has"""
    return refused(reference(config).state_dict(), config | {"num_hidden_layers": config["num_hidden_layers"] - 1})


def other_config_refused(config: Data) -> str | None:
    """weights of another config are not put into the model in hand"""
    other = config | {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 16}  # the same shapes
    try:
        load_weights(load_model(reference(other), config=other), reference(config))
    except CheckpointError:
        return None
    return "they were loaded without a word"


def old_constants(config: Data) -> str | None:
    """the causal mask in old files is not a bias"""
    old = reference(config).state_dict() | {"transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64).tril()}
    ids = random_ids(config, 2, TOKENS)
    return apart(logits_of(load_model(old, config=config), ids), logits_of(reference(config), ids), "logits")


def stops(config: Data) -> str | None:
    """generation ends at every stop id"""
    model, prompt = load_model(reference(config), config=config), [[2, 3, 4]]
    free = generate(model, prompt, 6)[0][3:]
    unused = next(token for token in range(config["vocab_size"]) if token not in free)
    for stop_ids in ([unused, free[0]], [free[0], unused]):
        written = generate(model, prompt, 6, stop_ids=stop_ids)[0][3:]
        if written != free[:1]:
            return f"{len(written)} tokens were written, and the first was a stop id"
    return None


def beginning(config: Data) -> str | None:
    """prompts begin as transformers begins them"""
    from transformers import AutoTokenizer

    folder, text = BUNDLED / "tiny-llama3", "Once upon a time"
    found, expected = load_tokenizer(folder).encode(text), AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    return None if found == expected else f"{found[:3]}... instead of {expected[:3]}..."


def stop_list(config: Data) -> str | None:
    """all stop ids of generation_config.json are read"""
    with tempfile.TemporaryDirectory() as folder:
        for file in (BUNDLED / "tiny-llama3").glob("*.json"):
            (Path(folder) / file.name).write_bytes(file.read_bytes())
        (Path(folder) / "generation_config.json").write_text('{"eos_token_id": [5, 6, 7]}')
        found = load_tokenizer(folder).stop_ids
    return None if found == (5, 6, 7) else f"{found} instead of (5, 6, 7)"


def something_seen(config: Data) -> str | None:
    """every query sees something, padding too: a softmax over nothing is NaN"""
    mask, _ = base.attention_mask(0, TOKENS, torch.tensor([0, 11]), torch.device("cpu"))
    blind = int((~mask.any(dim=-1)).sum())
    return f"{blind} queries see nothing" if blind else None


def expert_files(config: Data) -> str | None:
    """the hub's files, one for each expert's matrix, give the logits of the fused tensors"""
    tensors = {}
    for name, tensor in reference(config).state_dict().items():
        stem, _, kind = name.rpartition(".")
        parts = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}.get(kind, ())
        for expert in range(len(tensor)) if parts else ():
            for part, matrix in zip(parts, tensor[expert].chunk(len(parts)), strict=True):
                tensors[f"{stem}.{expert}.{part}.weight"] = matrix
        if not parts:
            tensors[name] = tensor
    ids = random_ids(config, 2, TOKENS)
    found = logits_of(load_model(tensors, config=config), ids)
    return apart(found, logits_of(reference(config), ids), "logits of the two layouts")


def field_needed(name: str) -> Check:
    def check(config: Data) -> str | None:
        incomplete = {key: value for key, value in config.items() if key != name}
        return refused(reference(config).state_dict(), incomplete)

    check.__doc__ = f"a config.json without {name} is refused"
    return check
