"""README, runbook and CONTRIBUTING say what is really there."""

import ast
import json
import re
from pathlib import Path

import pytest

from course_helpers import FAMILIES
from course_helpers.labs.order import RUN_ORDER, find_labs
from tests.bundled import FOLDERS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "runbook.md", "CONTRIBUTING.md", "environments.md", "slides/README.md")
texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
LABS = find_labs(ROOT / "notebooks")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", texts[name])
    folder = (ROOT / name).parent
    missing = [target for target in targets if "://" not in target and not (folder / target).exists()]
    assert missing == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist(name):
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`|=hub )make ([a-z0-9-]+)", texts[name], flags=re.MULTILINE))
    assert named and named <= targets


def test_every_lab_is_in_the_readme_in_order():
    found = [lab.id for lab in LABS]
    assert found == [lab for lab in RUN_ORDER if lab in found]
    rows = re.findall(r"^\| \[(M9-[\w-]+)\]\(notebooks/([^)]+)\) \|", texts["README.md"], flags=re.MULTILINE)
    assert rows == [(lab.id, lab.notebook.name) for lab in LABS]


def hub_sources(lab):
    """What a lab loads with COURSE_CHECKPOINTS=hub: the hub ids under the key "hub" of its dictionaries."""
    nodes = ast.walk(ast.parse(lab.source.read_text(encoding="utf-8")))
    dictionaries = [node for node in nodes if isinstance(node, ast.Dict)]
    values = [
        value
        for node in dictionaries
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "hub"
    ]
    strings = [node.value for value in values for node in ast.walk(value) if isinstance(node, ast.Constant)]
    return {text for text in strings if isinstance(text, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", text)}


def test_the_runbook_lists_every_download():
    rows = re.findall(r"^\| `([\w.-]+/[\w.-]+)` \|.*\| ([^|]+) \|$", texts["runbook.md"], flags=re.MULTILINE)
    listed = {(model, lab) for model, labs in rows for lab in labs.split(", ")}
    needed = {(model, lab.id) for lab in LABS for model in hub_sources(lab)}
    assert needed - listed == set()


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_the_readme_has_the_figures_of_every_card(family):
    card = json.loads((FOLDERS[family.tiny] / "card.json").read_text())
    loss, entropy = card["held_out"]["loss_per_token"], card["held_out"]["entropy_per_token"]
    row = f"| `{family.tiny}` | {family.title} | {card['parameters']:,} | {loss:.3f} | {entropy:.3f} |"
    assert row in texts["README.md"]


def test_the_example_of_the_readme_runs(capsys):
    example = re.search(r"```python\n(from course_helpers.*?)```", texts["README.md"], flags=re.DOTALL)[1]
    exec(example, {})
    assert capsys.readouterr().out.startswith("Once upon a time")
