"""What the tests of TensorFlow checkpoints share: TensorFlow's own files, and indexes with valid CRCs and any content.

`fuzz_index` and `fuzz_data` take any bytes and let nothing but CheckpointError pass.
"""

import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from course_helpers import CheckpointError
from course_helpers.loaders.crc32c import masked_crc32c
from course_helpers.loaders.openai import read_hparams
from course_helpers.loaders.sstable import MAGIC
from course_helpers.loaders.tf_checkpoint import TensorFlowFile
from course_helpers.loaders.tf_index import read_index
from course_helpers.loaders.tf_writer import append, varint

FIXTURE = Path(__file__).parent / "tensorflow_gpt2"
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"


@cache
def expected() -> dict[str, Tensor]:
    """The values that TensorFlow's own reader found."""
    with np.load(FIXTURE / "expected.npz") as file:
        tensors = {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
    tensors["bfloat16"] = tensors["bfloat16"].to(torch.bfloat16)
    return tensors


def copy_of(name: str, folder: Path) -> Path:
    """A copy of one of TensorFlow's checkpoints, to be damaged."""
    return Path(shutil.copytree(FIXTURE / name, folder / name))


@cache
def reference() -> nn.Module:
    """The fixture's GPT-2 as transformers computes it: the same numbers, under its names, without our tables."""
    sizes = read_hparams(FIXTURE / "gpt2/hparams.json")
    names = {"n_vocab": "vocab_size", "n_ctx": "n_positions"}
    config = transformers.GPT2Config(**{names.get(name, name): value for name, value in sizes.items()})
    model = transformers.GPT2LMHeadModel(config).eval()
    wanted = model.transformer.state_dict()
    for name in wanted:
        *path, last = name.removeprefix("h.").split(".")
        norm = path[-1].startswith("ln")
        letter = "b" if last == "bias" else "g" if norm else "w"
        parts = ["model", *(["h" + path[0], *path[1:]] if path[0].isdigit() else path)]
        source = "/".join(parts if path[-1] in ("wte", "wpe") else [*parts, letter])
        wanted[name] = expected()[source].view(wanted[name].shape)
    model.transformer.load_state_dict(wanted)
    return model


def sealed(content: bytes, kind: int = 0) -> bytes:
    """A block with its trailer."""
    return content + bytes([kind]) + masked_crc32c(content + bytes([kind])).to_bytes(4, "little")


def table_of(content: bytes, kind: int = 0, bound: bytes = b"\xff") -> bytes:
    """A table with one data block, whose CRC is right whatever it holds."""
    file = bytearray(sealed(content, kind))
    rows = [(bound, varint(0) + varint(len(content)))]
    footer = append(file, [], 16) + append(file, rows, 1)
    return bytes(file) + footer.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def block_of(rows: Mapping[bytes, bytes] | list[tuple[bytes, bytes]]) -> bytes:
    """A block with keys in full and one restart point, in the order given."""
    items = rows.items() if isinstance(rows, Mapping) else rows
    entries = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in items)
    return entries + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def fuzz_index(data: bytes) -> None:
    """The parser of indexes on bytes as they are, as the content of a block, and as the header and an entry."""
    for index in (
        data,
        table_of(data),
        table_of(block_of({b"": b"\x08\x01", b"w": data})),
        table_of(block_of({b"": data})),
    ):
        try:
            read_index(index)
        except CheckpointError as error:
            assert str(error) and error.next_step


def fuzz_data(data: bytes) -> None:
    """The reader of data files on a sound index and these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(FIXTURE / "types" / INDEX, folder)
        Path(folder, DATA).write_bytes(data)
        try:
            file = TensorFlowFile(Path(folder, INDEX))
        except CheckpointError as error:
            assert str(error) and error.next_step
            return
        for read in (file.read, file.map):
            for name in file.tensors:
                try:
                    tensor = read(name)
                except CheckpointError as error:
                    assert error.tensor == name and error.next_step
                else:
                    assert torch.equal(tensor, expected()[name])
