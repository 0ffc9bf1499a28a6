"""The smoke suite as a template: copied to a place outside of the repository, it passes a good checkpoint and fails a
damaged one."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from safetensors.torch import load_file, save_file

from course_helpers import load_model, load_tokenizer, save_checkpoint
from tests.bundled import FOLDERS

TEMPLATE, REPOSITORY = Path(__file__).with_name("test_smoke.py"), Path(__file__).parents[2]


def saved(folder: Path) -> Path:
    """A checkpoint outside of the repository, with the greedy texts of its card."""
    save_checkpoint(load_model("tiny-gpt2"), folder, load_tokenizer("tiny-gpt2"))
    card = json.loads((FOLDERS["tiny-gpt2"] / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({"greedy": card["greedy"]}))
    return folder


def test_a_copy_passes_a_good_checkpoint_and_fails_one_with_a_matrix_transposed(tmp_path):
    good, damaged = saved(tmp_path / "good"), saved(tmp_path / "damaged")
    tensors = load_file(damaged / "model.safetensors")
    tensors["h.1.attn.c_proj.weight"] = tensors["h.1.attn.c_proj.weight"].T.contiguous()
    save_file(tensors, damaged / "model.safetensors")
    shutil.copy(TEMPLATE, tmp_path)
    settings = {"SMOKE_SOURCE": f"{good}{os.pathsep}{damaged}", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", TEMPLATE.name]
    environment = os.environ | settings | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    outcomes = re.findall(r"^(PASSED|FAILED) \S+::(test_\w+)\[.*(good|damaged)\]", result.stdout, re.MULTILINE)
    failed = [(name, source) for outcome, name, source in outcomes if outcome == "FAILED"]
    assert failed == [("test_text_is_what_the_card_says", "damaged")], result.stdout + result.stderr
    assert Counter(source for _, _, source in outcomes) == {"good": 6, "damaged": 6}
