"""Every silent fault, in every family that it fits, stops at a layer of the validation stack that gives a reason."""

import pytest

from course_helpers import FAMILIES, validate_checkpoint
from tests.bundled import FOLDERS, copy_of
from tests.silent_faults import FAULTS
from tests.silent_faults.observe import NOBODY, observe
from tests.silent_faults.table import README, cases, table


@pytest.mark.parametrize("name", FAULTS)
def test_no_fault_goes_unnoticed(name):
    for family in FAULTS[name].families:
        seen = observe(name, family)
        assert seen.layer != NOBODY, family
        assert all(words in seen.says for words in ("expected", "found", "likely cause", "next step")), seen.says
        assert seen.by_hash != FAULTS[name].in_code, "a change of files shows in their hashes, one of code does not"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_good_checkpoint_passes_with_its_card_without_hashes_and_without_a_card(tmp_path, family):
    folder = FOLDERS[FAMILIES[family].tiny]
    assert validate_checkpoint(folder).ok
    copy = copy_of(folder, tmp_path, listed=False)
    assert validate_checkpoint(copy).ok
    (copy / "card.json").unlink()
    report = validate_checkpoint(copy)
    assert report.ok, report


def test_there_are_enough_faults_of_every_family():
    assert len(FAULTS) >= 25
    for family in FAMILIES:
        assert sum(family in fault.families for fault in FAULTS.values()) >= 15


def test_the_table_says_what_is_observed():
    assert len(cases()) == sum(len(fault.families) for fault in FAULTS.values())
    assert README.read_text(encoding="utf-8") == table(), "python -m tests.silent_faults writes it anew"


def test_the_readme_of_the_course_counts_right(pytestconfig):
    text = (pytestconfig.rootpath / "README.md").read_text(encoding="utf-8")
    assert f"{len(FAULTS)} silent faults" in text and f"the {len(cases())} cases" in text
