"""Dev container, Binder and conda: their files say what the course needs, and call what there is."""

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
CONDA = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text(encoding="utf-8"))
REQUIREMENTS = {
    need.name: need
    for need in map(Requirement, re.findall(r"^[a-zA-Z].*$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
}


def test_the_container_sets_up_with_a_target_of_the_makefile():
    commands = [value for key, value in CONTAINER.items() if key.endswith("Command")]
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert commands and {command.removeprefix("make ") for command in commands} <= targets


def test_the_container_needs_no_gpu_and_finds_the_python_that_make_sets_up():
    assert "gpu" not in CONTAINER["hostRequirements"] and "runArgs" not in CONTAINER
    interpreter = CONTAINER["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert (
        interpreter == "${containerWorkspaceFolder}/" + re.search(r"^VENV_PYTHON := (.*)$", MAKEFILE, re.MULTILINE)[1]
    )
    image, _, tag = CONTAINER["image"].partition(":")
    assert image == "python" and re.fullmatch(r"3\.1[123]-bookworm", tag)


def conda_versions():
    """Package -> specifier of what comes from the channel."""
    found = (re.fullmatch(r"([a-z-]+)(.*)", line) for line in CONDA["dependencies"] if isinstance(line, str))
    return {match[1]: match[2] for match in found}


def test_conda_brings_torch_and_numpy_in_versions_that_the_course_takes():
    versions = conda_versions()
    assert versions["pytorch-cpu"] == str(REQUIREMENTS["torch"].specifier)
    assert versions["numpy"] == str(REQUIREMENTS["numpy"].specifier)
    python = versions["python"].removeprefix("=")
    assert python in ("3.11", "3.12", "3.13")


def test_pip_gets_the_same_requirements_as_everybody(tmp_path):
    [inner] = [line["pip"] for line in CONDA["dependencies"] if isinstance(line, dict)]
    files = [ROOT / ".binder" / line.removeprefix("-r ") for line in inner]
    assert [path.resolve() for path in files] == [ROOT / "requirements.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="Binder is Linux")
def test_post_build_is_a_program_and_calls_what_there_is():
    path = ROOT / ".binder" / "postBuild"
    assert os.access(path, os.X_OK) and path.read_text().startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", path], check=True)
    assert "set -eu" in path.read_text()
    last = path.read_text().splitlines()[-1].split()
    assert last[:2] == ["python", "-m"]
    outcome = subprocess.run([sys.executable, *last[1:], "M9-LAB-01"], capture_output=True, text=True, cwd=ROOT)
    assert outcome.stdout == "1 labs checked, 0 findings\n"


def brought_by(names):
    """Normalised names of what pip installs for these packages, themselves included."""
    waiting, found = set(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        try:
            needs = map(Requirement, metadata.requires(name) or []) if name not in found else ()
        except metadata.PackageNotFoundError:  # for another system or Python
            continue
        found.add(name)
        waiting |= {need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})}
    return found


def imported(path):
    """Top-level modules that a file imports at its beginning."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        yield from (name.partition(".")[0] for name in names)


def test_the_tests_for_windows_import_nothing_but_what_requirements_bring():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    left_out = [ROOT / folder for folder in re.findall(r"--ignore=(\S+)", readme)]
    assert {path.name for path in left_out} == {"slides", "animations", "site"}
    there, owners = brought_by(REQUIREMENTS), metadata.packages_distributions()
    lacking = {
        (path.relative_to(ROOT).as_posix(), module)
        for path in (ROOT / "tests").rglob("*.py")
        if not any(folder in path.parents for folder in left_out)
        for module in imported(path)
        if module in owners and not there & {canonicalize_name(name) for name in owners[module]}
    }
    assert {(file, module) for file, module in lacking if module not in ("course_helpers", "checkpoints")} == set()
    assert "python-pptx" not in there and "pytest" in there
