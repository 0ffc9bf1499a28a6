"""The real labs pass every check that needs no execution; their outputs are compared by nbval, in ``notebooks/``."""

import pytest

from course_helpers.labs.check import check_lab
from course_helpers.labs.order import find_labs

LABS = find_labs()


def test_there_are_labs():
    assert LABS, "notebooks/ holds no lab: every check below would pass without checking anything"


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_lab_has_no_findings(lab):
    findings = check_lab(lab)
    assert not findings, "\n" + "\n".join(map(str, findings))
