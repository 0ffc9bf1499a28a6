"""nbval compares what it is meant to compare: it stays silent where it is set up wrong."""

import re
import subprocess
import sys

import pytest
from nbformat.v4 import new_output
from nbval.plugin import get_sanitize_patterns


@pytest.fixture
def nbval_flags(pytestconfig):
    """The very flags of `make test`, on one process."""
    makefile = (pytestconfig.rootpath / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (flags,) = re.findall(r"^PYTEST_FLAGS := (.*)$", makefile, re.MULTILINE)
    assert "$(PYTEST_FLAGS) tests notebooks" in makefile
    return flags.replace("$(WORKERS)", "0").split()


@pytest.fixture
def sanitize(pytestconfig):
    text = (pytestconfig.rootpath / "tests" / "sanitize.cfg").read_bytes().decode("ascii")
    patterns = get_sanitize_patterns(text.replace("\r\n", "\n"))
    assert len(patterns) == text.count("regex:") == text.count("replace:")

    def apply(line):
        for pattern, replacement in patterns:
            line = re.sub(pattern, replacement, line)
        return line

    return apply


def test_this_session_is_not_lax(pytestconfig):
    assert not pytestconfig.option.nbval_lax
    assert "nbval-lax" not in (pytestconfig.rootpath / "pyproject.toml").read_text(encoding="utf-8")


def test_the_flags_compare_every_output_in_this_environment(nbval_flags):
    assert {"--nbval", "--nbval-current-env"} <= set(nbval_flags) and "--nbval-lax" not in nbval_flags
    assert nbval_flags[nbval_flags.index("--nbval-cell-timeout") + 1] == "120"
    assert nbval_flags[nbval_flags.index("--dist") + 1] == "loadfile"


def test_a_changed_output_fails_and_a_changed_time_does_not(write_lab, store, nbval_flags, pytestconfig):
    lab = write_lab(cells='\n# %%\nprint("took 5 ms")\n\n# %%\nprint("loss 0.25")\n', answer=None)

    def spoil(notebook):
        notebook.cells[0].outputs.append(new_output("stream", text="took 7.1 ms\n"))
        notebook.cells[1].outputs.append(new_output("stream", text="loss 0.26\n"))

    path = store(lab, spoil)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *nbval_flags, str(path)]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=pytestconfig.rootpath)
    assert "1 failed, 1 passed" in outcome.stdout and "Cell outputs differ" in outcome.stdout
    assert outcome.returncode == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("took 1.25 s", "took TIME"),
        ("12 ms, 3us", "TIME, TIME"),
        ("41.5 tokens/s", "RATE"),
        ("0.8s/it", "RATE"),
        ("<object at 0x7f12ab34cd56>", "<object at ADDRESS>"),
        ("loss 0.0123, 12 heads", "loss 0.0123, 12 heads"),
        ("shape (2, 8), 512 MB", "shape (2, 8), 512 MB"),
        ("flags 0x1f", "flags 0x1f"),
        ("3 minimum, 4 states", "3 minimum, 4 states"),
    ],
)
def test_sanitising_takes_times_rates_and_addresses_and_nothing_else(sanitize, line, expected):
    assert sanitize(line) == expected
