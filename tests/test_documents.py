"""README, runbook and CONTRIBUTING say what is really there."""

import json
import re
from pathlib import Path

import pytest

from course_helpers import FAMILIES
from course_helpers.labs.order import RUN_ORDER, find_labs
from tests.bundled import FOLDERS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "runbook.md", "CONTRIBUTING.md")
texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
LABS = find_labs(ROOT / "notebooks")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", texts[name])
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert missing == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist(name):
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`|=hub )make ([a-z-]+)", texts[name], flags=re.MULTILINE))
    assert named and named <= targets


def test_every_lab_is_in_readme_and_runbook_in_order():
    found = [lab.id for lab in LABS]
    assert found == [lab for lab in RUN_ORDER if lab in found]
    for name in ("README.md", "runbook.md"):
        places = [texts[name].find(lab) for lab in found]
        assert -1 not in places and places == sorted(places), name
    for lab in LABS:
        assert f"(notebooks/{lab.notebook.name})" in texts["README.md"]


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
