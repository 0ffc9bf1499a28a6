"""Every rank reads its own part, whatever the checkpoint's format and layout: the same values as read whole.

The models are small and random, and their sizes awkward: a vocabulary that no number of ranks divides, layers with and
without experts in one model, heads tied and of their own.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from course_helpers import load_model
from course_helpers.parallelism.apply import shares_of
from tests.formats import FORMATS, META_CONFIG, META_FORMATS
from tests.loaders.tensorflow_files import FIXTURE
from tests.parallel.launch import work
from tests.tiny_models import EXAMPLES, theirs, write_config

SIZE = 2
#: Three heads are no matter for two ranks: `test_shares` has what is said of them.
FAMILIES = [name for name in EXAMPLES if name != "llama2"]
OTHER_FORMATS = ("safetensors, sharded", "bin", "bin, legacy", "bin, sharded")
CHECKPOINTS = [
    *FAMILIES,
    *(f"{name}, {format}" for name in ("gpt2", "llama3", "qwen3_moe") for format in OTHER_FORMATS),
    *(f"meta, {format}" for format in META_FORMATS),
    "qwen3_moe, fused",
    "gpt2, tensorflow",
]


def write(name: str, folder: Path) -> None:
    """The checkpoint of that name, in a folder of its own."""
    family, _, format = name.partition(", ")
    if format == "tensorflow":
        shutil.copytree(FIXTURE / "gpt2", folder)
        sizes = folder / "hparams.json"  # the same numbers with two heads in the place of three are a model as well
        sizes.write_text(sizes.read_text().replace('"n_head": 3', '"n_head": 2'))
        return
    folder.mkdir()
    if format == "fused":
        model = theirs(EXAMPLES[family])
        save_file(model.state_dict(), folder / "model.safetensors")
        write_config(folder, model.config.to_dict())
    elif family == "meta":
        META_FORMATS[format](theirs(META_CONFIG), folder)
    else:
        FORMATS[format or "safetensors"](theirs(EXAMPLES[family]), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All of them, and what each rank made of them."""
    folder = tmp_path_factory.mktemp("formats")
    for name in CHECKPOINTS:
        write(name, folder / name)
    ended = work("formats", SIZE, folder)
    assert [one.status for one in ended] == [0] * SIZE, "\n".join(one.err[-3000:] for one in ended)
    return folder


@pytest.fixture(scope="module")
def ranks(folder) -> list[dict]:
    return [torch.load(folder / f"formats-{rank}-of-{SIZE}.pt") for rank in range(SIZE)]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_parts_and_logits_are_those_of_the_whole(folder, ranks, name):
    whole = load_model(folder / name)
    shares = shares_of(whole, SIZE)
    with torch.no_grad():
        logits = whole(torch.arange(20)[None])
    for rank, found in enumerate(ranks):
        for parameter, values in whole.named_parameters():
            cut = shares[parameter].cut(values.shape, rank, SIZE)
            expected = values if cut is None else values.narrow(cut.dim, cut.start, cut.stop - cut.start)
            assert torch.equal(found[name]["parts"][parameter], expected), parameter
        torch.testing.assert_close(found[name]["logits"], logits, rtol=1e-4, atol=1e-4)


def test_fused_experts_were_read_as_such(folder):
    assert "fused" in load_model(folder / "qwen3_moe, fused").load_report.layout
