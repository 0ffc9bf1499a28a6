"""The commands of a stranger's first minute: what the set-up script does, asks for, and says when it cannot go on."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11")

needs_a_shell = pytest.mark.skipif(sys.platform == "win32", reason="make and its scripts need a POSIX shell")


@pytest.fixture
def machine(tmp_path):
    """machine(programs, *arguments): run setup.sh where these programs (name -> shell line) come before all others."""

    def run(programs, *arguments):
        binaries = tmp_path / "bin"
        binaries.mkdir()
        for name, line in programs.items():
            (binaries / name).write_text(f"#!/bin/sh\n{line}\n")
            (binaries / name).chmod(0o755)
        environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "PYTHON": ""}
        command = ["sh", str(ROOT / "tools" / "setup.sh"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)

    return run


@pytest.fixture
def package_list(tmp_path):
    path = tmp_path / "packages.txt"
    path.write_text("# a comment\nffmpeg ffmpeg films\n\nchromium chromium-brew slides # why\n")
    return str(path)


@needs_a_shell
@pytest.mark.parametrize("programs", [{"id": "echo 0"}, {"id": "echo 1000", "sudo": 'shift; "$@"'}])
def test_system_packages_are_installed_as_root_or_with_sudo(machine, package_list, programs):
    programs |= {"apt-get": 'echo "apt-get $*"', "apt-cache": 'echo "  Candidate: 1.0"'}
    outcome = machine(programs, "system-packages", package_list)
    assert outcome.returncode == 0
    assert outcome.stderr == "apt-get install -qq -y --no-install-recommends ffmpeg chromium\n"


#: Ubuntu's answers: Chromium is a transitional package to a snap, or unknown.
SNAP = 'echo "$2:"; case $2 in chromium) echo "  Candidate: %s";; *) echo "  Candidate: 7:6.1";; esac'


@needs_a_shell
@pytest.mark.parametrize("version", ["(none)", "2:1snap1-0ubuntu2"])
def test_on_ubuntu_the_rest_is_installed_and_another_browser_does(machine, package_list, version, tmp_path):
    programs = {"id": "echo 0", "apt-get": 'echo "apt-get $*"', "apt-cache": SNAP % version, "chromium": "", "sudo": ""}
    outcome = machine(programs, "system-packages", package_list)
    assert outcome.returncode == 0
    update, install = outcome.stderr.splitlines()
    assert update == "apt-get update -qq" and install.endswith("--no-install-recommends ffmpeg")


@needs_a_shell
def test_on_ubuntu_without_a_browser_the_next_step_is_named(machine, package_list, monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_CHROMIUM", raising=False)
    bare = tmp_path / "bare"
    bare.mkdir()
    for tool in ("sh", "awk", "env", "grep", "sed", "tr"):
        (bare / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(bare))
    programs = {"id": "echo 0", "apt-get": 'echo "apt-get $*"', "apt-cache": SNAP % "(none)"}
    outcome = machine(programs, "system-packages", package_list)
    assert outcome.returncode == 1 and "install -qq -y --no-install-recommends ffmpeg\n" in outcome.stderr
    assert "playwright install --with-deps chromium" in outcome.stderr.splitlines()[-1]


@needs_a_shell
def test_a_package_that_apt_does_not_know_is_named(machine, package_list):
    programs = {"id": "echo 0", "apt-get": "", "apt-cache": 'case $2 in chromium) echo "Candidate: 150";; esac'}
    outcome = machine(programs, "system-packages", package_list)
    assert outcome.returncode == 1 and "Not known to apt here: ffmpeg" in outcome.stderr


@needs_a_shell
def test_without_root_the_line_to_run_is_printed(machine, package_list):
    programs = {"id": "echo 1000", "sudo": "exit 1", "apt-get": "exit 1"}
    outcome = machine(programs, "system-packages", package_list)
    assert outcome.returncode == 1
    assert "sudo apt-get install -y --no-install-recommends ffmpeg chromium" in outcome.stderr


@needs_a_shell
def test_an_empty_list_installs_nothing(machine, tmp_path):
    (tmp_path / "empty.txt").write_text("# nothing\n")
    outcome = machine({"apt-get": "exit 1"}, "system-packages", str(tmp_path / "empty.txt"))
    assert outcome.returncode == 0 and outcome.stderr == "No system packages are needed.\n"


@needs_a_shell
def test_without_a_new_enough_python_the_way_out_is_printed(machine):
    outcome = machine(dict.fromkeys(PYTHONS, "exit 1"), "environment", ".venv/.ready")
    assert outcome.returncode == 1
    assert "No Python 3.11 or later found" in outcome.stderr and "make PYTHON=" in outcome.stderr


@needs_a_shell
def test_without_ensurepip_pip_and_root_the_line_to_run_is_printed(machine):
    # Knows its version and name, and has neither ensurepip nor pip.
    python = 'case "$*" in *version_info*\\<*) exit 0;; *print*) echo python3.11-venv;; *) exit 1;; esac'
    programs = dict.fromkeys(PYTHONS, python.replace("\\<", "'<'")) | {"id": "echo 1000", "sudo": "exit 1"}
    outcome = machine(programs, "environment", ".venv/.ready")
    assert outcome.returncode == 1
    assert outcome.stderr.endswith("sudo apt-get install -y python3.11-venv\n")


def test_every_target_is_listed_by_help():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    assert phony == set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))


def test_no_set_up_file_names_a_package_host_or_a_folder_of_one_machine():
    for name in ("Makefile", "tools/setup.sh", ".ci/run", ".pre-commit-config.yaml", "requirements.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|index-url|find-links|/(home|root|work|opt)/", text), name
