"""The formats that a checkpoint comes in, each written from a transformers model."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from course_helpers import load_model
from tests.tiny_models import Data, write_config

Source = tuple[object, Data | None]  # what load_model is given: a source, and a config where the source has none


def safetensors_single(model: nn.Module, folder: Path) -> Source:
    model.save_pretrained(folder)
    return folder, None


def safetensors_sharded(model: nn.Module, folder: Path) -> Source:
    model.save_pretrained(folder, max_shard_size="8KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder, None


def pytorch(name: str, zipped: bool, shards: int = 1) -> Callable[[nn.Module, Path], Source]:
    def write(model: nn.Module, folder: Path) -> Source:
        tensors = list(model.state_dict().items())
        write_config(folder, model.config.to_dict())
        if shards == 1:
            torch.save(dict(tensors), folder / name, _use_new_zipfile_serialization=zipped)
            return folder, None
        index = {}
        for number in range(shards):
            shard = f"pytorch_model-{number + 1:05}-of-{shards:05}.bin"
            part = dict(tensors[number::shards])
            torch.save(part, folder / shard, _use_new_zipfile_serialization=zipped)
            index |= dict.fromkeys(part, shard)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
        return folder, None

    return write


def single_file(model: nn.Module, folder: Path) -> Source:
    torch.save(model.state_dict(), folder / "weights.pth")
    return folder / "weights.pth", model.config.to_dict()


FORMATS: dict[str, Callable[[nn.Module, Path], Source]] = {
    "safetensors": safetensors_single,
    "safetensors, sharded": safetensors_sharded,
    "bin": pytorch("pytorch_model.bin", zipped=True),
    "bin, legacy": pytorch("pytorch_model.bin", zipped=False),
    "bin, sharded": pytorch("", zipped=True, shards=3),
    "bin, sharded, legacy": pytorch("", zipped=False, shards=3),
    "pth": single_file,
    "live": lambda model, folder: (model, None),
    "own state dict": lambda model, folder: (load_model(model).state_dict(), model.config.to_dict()),
}


#: A Llama that Meta's layout can hold: what its params.json does not say is what our reader takes for it.
META_CONFIG: Data = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "bos_token_id": None,
    "eos_token_id": None,
}

#: Where Meta keeps each tensor of a transformers Llama, and the dimension along which several files share it.
META_TENSORS = {
    "self_attn.q_proj": ("attention.wq", 0),
    "self_attn.k_proj": ("attention.wk", 0),
    "self_attn.v_proj": ("attention.wv", 0),
    "self_attn.o_proj": ("attention.wo", 1),
    "mlp.gate_proj": ("feed_forward.w1", 0),
    "mlp.down_proj": ("feed_forward.w2", 1),
    "mlp.up_proj": ("feed_forward.w3", 0),
    "input_layernorm": ("attention_norm", None),
    "post_attention_layernorm": ("ffn_norm", None),
}


def in_pairs(matrix: Tensor, head_dim: int) -> Tensor:
    """The rows of a query or key matrix in Meta's order: what transformers has half a head apart is side by side."""
    rows = []
    for start in range(0, len(matrix), head_dim):
        for pair in range(head_dim // 2):
            rows.append(matrix[start + pair])
            rows.append(matrix[start + pair + head_dim // 2])
    return torch.stack(rows)


def meta_tensors(model: nn.Module) -> dict[str, tuple[Tensor, int | None]]:
    """The tensors of a transformers Llama by Meta's names, each with the dimension it is cut along."""
    config, theirs = model.config, model.state_dict()
    head_dim = config.hidden_size // config.num_attention_heads
    tensors = {"tok_embeddings.weight": (theirs["model.embed_tokens.weight"], 1)}
    for layer in range(config.num_hidden_layers):
        for name, (meta_name, cut) in META_TENSORS.items():
            tensor = theirs[f"model.layers.{layer}.{name}.weight"]
            if meta_name in ("attention.wq", "attention.wk"):
                tensor = in_pairs(tensor, head_dim)
            tensors[f"layers.{layer}.{meta_name}.weight"] = (tensor, cut)
    tensors["norm.weight"] = (theirs["model.norm.weight"], None)
    tensors["output.weight"] = (theirs["lm_head.weight"], 0)
    tensors["rope.freqs"] = (1e4 ** -(torch.arange(0, head_dim, 2) / head_dim), None)
    return tensors


def meta_params(config: Data) -> Data:
    """A params.json for a config.json: with a multiplier that makes Meta's rule give its feed-forward width."""
    params = {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "n_heads": config["num_attention_heads"],
        "multiple_of": 1,
        "ffn_dim_multiplier": (config["intermediate_size"] + 0.5) / int(8 * config["hidden_size"] / 3),
        "norm_eps": config["rms_norm_eps"],
        "vocab_size": -1,
    }
    shared = config.get("num_key_value_heads")
    return params if shared in (None, params["n_heads"]) else params | {"n_kv_heads": shared}


def meta(shards: int = 1, embedding_cut: int = 1, zipped: bool = True) -> Callable[[nn.Module, Path], Source]:
    """A writer of Meta's layout: Llama 2 cuts the token embedding along dimension 1, Llama 3 along 0."""

    def write(model: nn.Module, folder: Path) -> Source:
        folder.mkdir(exist_ok=True)
        tensors = meta_tensors(model)
        tensors["tok_embeddings.weight"] = (tensors["tok_embeddings.weight"][0], embedding_cut)
        (folder / "params.json").write_text(json.dumps(meta_params(model.config.to_dict())))
        assert all(cut is None or tensor.shape[cut] % shards == 0 for tensor, cut in tensors.values())
        for shard in range(shards):
            part = {
                name: tensor if shards == 1 or cut is None else tensor.chunk(shards, cut)[shard].clone()
                for name, (tensor, cut) in tensors.items()
            }
            torch.save(part, folder / f"consolidated.{shard:02}.pth", _use_new_zipfile_serialization=zipped)
        return folder, None

    return write


#: Meta's layout, which only Llama comes in.
META_FORMATS: dict[str, Callable[[nn.Module, Path], Source]] = {
    "one file": meta(),
    "one file, legacy": meta(zipped=False),
    "2 files": meta(2),
    "2 files, legacy": meta(2, zipped=False),
    "2 files, embedding by rows": meta(2, embedding_cut=0),
}
