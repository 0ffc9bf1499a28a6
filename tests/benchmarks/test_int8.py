"""The int8 benchmark on few stories: its figures, worked out once more by hand; and its report."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import int8
from benchmarks.int8_table import LAST, table, verdict
from course_helpers import FAMILIES, load_model, load_tokenizer
from course_helpers.loaders.sources import BUNDLED

NAME = "tiny-llama2"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    int8.main(["--quick", "--output", str(folder)])
    assert sorted(path.name for path in folder.iterdir()) == ["int8.json", "int8.md"]
    return json.loads((folder / "int8.json").read_text()), (folder / "int8.md").read_text()


def of(report, name):
    return next(one for one in report[0]["checkpoints"] if one["checkpoint"] == name)


def rounded(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows in whole numbers from -127 to 127 and their scales, which are bfloat16: the upper half of a float32, the
    lower half rounded to even. All written here, in numpy."""
    scale = (np.abs(weight).max(axis=1) / np.float32(127)).astype(np.float32)
    bits = scale.view(np.uint32).astype(np.uint64)
    scale = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    return np.clip(np.rint(weight / scale[:, None]), -127, 127), scale


@pytest.fixture(scope="module")
def by_hand():
    """A checkpoint's matrices and their int8 values, from its file: Llama's names are those of Transformers."""
    tensors = {}
    for path in sorted((BUNDLED / NAME).glob("*.safetensors")):
        tensors |= {name: tensor.float().numpy() for name, tensor in load_file(path).items()}
    matrices = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 2}
    return matrices, {name: rounded(weight) for name, weight in matrices.items()}


def test_the_errors_of_the_weights_by_hand(report, by_hand):
    matrices, whole = by_hand
    off = {name: np.abs(weight - whole[name][0] * whole[name][1][:, None]) for name, weight in matrices.items()}
    steps = np.concatenate([(off[name] / whole[name][1][:, None]).ravel() for name in matrices])
    squares = [sum(float((values.astype(float) ** 2).sum()) for values in some.values()) for some in (off, matrices)]
    found = of(report, NAME)["weights"]
    assert found["largest_in_steps"] == pytest.approx(steps.max(), rel=1e-5)
    assert found["mean_in_steps"] == pytest.approx(steps.mean(dtype=float), rel=1e-5)
    assert found["relative"] == pytest.approx(math.sqrt(squares[0] / squares[1]), rel=1e-5)


def test_the_loss_with_rounded_weights_by_hand(report, by_hand):
    """Transformers computes it, in float32, with the weights that numpy rounded."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(BUNDLED / NAME, dtype=torch.float32).eval()
    parameters, tokenizer = dict(model.named_parameters()), load_tokenizer(BUNDLED / NAME)
    with torch.no_grad():
        for name, (whole, scale) in by_hand[1].items():
            parameters[name].copy_(torch.from_numpy(whole * scale[:, None]))
        nats, count = 0.0, 0
        for story in int8.held_out(int8.QUICK):
            ids = torch.tensor([[*tokenizer.encode(story), tokenizer.stop_ids[0]]])
            log_TV = model(ids).logits[0, :-1].double().log_softmax(-1)
            nats -= log_TV.gather(1, ids[0, 1:, None]).sum().item()
            count += ids.shape[1] - 1
    found = of(report, NAME)
    assert found["tokens"] == count
    assert found["forms"][LAST]["loss"] == pytest.approx(nats / count, abs=1e-6)
    assert abs(found["forms"][LAST]["loss"] - found["forms"]["float32"]["loss"]) > 1e-6  # so it can be told apart


def test_every_checkpoint_is_measured_in_every_form(report):
    content, text = report
    assert [one["checkpoint"] for one in content["checkpoints"]] == [family.tiny for family in FAMILIES.values()]
    for one in content["checkpoints"]:
        forms = one["forms"]
        assert tuple(forms) == int8.FORMS and forms["float32"]["divergence"] == forms["float32"]["loss_change"] == 0
        assert all(row["divergence"] > 0 for form, row in forms.items() if form != "float32")
        assert forms["int8"]["loss"] - forms["float32"]["loss"] == pytest.approx(forms["int8"]["loss_change"])
        assert (
            forms["int8"]["bytes"] == load_model(one["checkpoint"], torch.bfloat16, weights="int8").load_report.nbytes
        )
        assert forms["float32"]["bytes"] == 2 * forms["bfloat16"]["bytes"]
        assert ("other_experts" in forms["int8"]) is ("moe" in one["checkpoint"])
    rows = [line for line in text.splitlines() if line.startswith("| tiny")]
    assert len(rows) == 5 * len(content["checkpoints"]) + 3
    for secret in (str(Path.home()), "/tmp", str(Path.cwd())):
        assert secret not in text and secret not in json.dumps(content)


def test_divergence_and_agreement_of_two_predictions():
    """A model that predicts one of two tokens at even odds, and one that does at three to one."""

    class Fixed(torch.nn.Module):
        def __init__(self, odds):
            super().__init__()
            self.odds = torch.tensor(odds).log()

        def forward(self, ids_BT):
            return self.odds.expand(*ids_BT.shape, -1)

    texts = [[0, 1, 1], [0, 0]]
    found = int8.compare({"float32": Fixed([0.4, 0.6]), "int8": Fixed([0.75, 0.25])}, texts)
    row = int8.figures(found["int8"], found["float32"], [3, 2])
    losses = [-math.log(0.25)] * 2 + [-math.log(0.75)]
    assert row["loss"] == pytest.approx(sum(losses) / 3)
    assert row["divergence"] == pytest.approx(0.4 * math.log(0.4 / 0.75) + 0.6 * math.log(0.6 / 0.25))
    assert row["agrees"] == 0 and row["behind"] == pytest.approx(0.2)
    changes = (2 * math.log(0.6 / 0.25), math.log(0.4 / 0.75))
    assert row["loss_change"] == pytest.approx(sum(changes) / 3)
    assert row["error"] == pytest.approx(abs(changes[0] - changes[1]) / 3)  # of two texts: their half range, twice


def test_the_sentence_says_what_was_measured(report):
    found = json.loads(json.dumps(report[0]["checkpoints"]))
    for one in found:
        one["forms"]["float32"]["loss"], one["forms"]["int8"]["bytes"] = 2.0, one["forms"]["bfloat16"]["bytes"] * 3
        one["forms"]["int8"] |= {"loss_change": 0.1, "error": 0.01, "agrees": 0.125}
    text = verdict(found)
    assert "3.00 to 3.00 times the bytes" in text and "+5.00% to +5.00%" in text and "12.5% to 12.5%" in text
    assert f"on {len(found)} of {len(found)} checkpoints" in text and text in table(report[0] | {"checkpoints": found})


def test_committed_figures_are_of_this_code(report):
    """Weights do not depend on the machine: their errors are the same on few stories and on many."""
    committed = json.loads((int8.RESULTS / "int8.json").read_text())
    assert committed["stories"] == int8.STORIES
    for one, now in zip(committed["checkpoints"], report[0]["checkpoints"], strict=True):
        assert one["weights"] == pytest.approx(now["weights"]) and one["checkpoint"] == now["checkpoint"]
    assert (int8.RESULTS / "int8.md").read_text(encoding="utf-8") == table(committed)
