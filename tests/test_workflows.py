"""What continuous integration runs in public is what runs here: linted, and every line a known command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from course_helpers.labs.order import find_labs
from tests.test_documents import hub_sources

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHONS = ["3.11", "3.12", "3.13"]
#: The start of README's block for Windows: GitHub's machines have the Python of that job as `python`.
LAUNCHER, ITS_PYTHON = "py -3.11 -m venv .venv", "python -m venv .venv"


def read(name):
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))


def steps():
    """(workflow, job, step) for every step there is."""
    for path in WORKFLOWS:
        for name, job in read(path.stem)["jobs"].items():
            for step in job.get("steps", []):
                yield path.stem, name, step


def lines_to_run():
    return {line for _, _, step in steps() for line in step.get("run", "").splitlines()}


def windows_lines():
    return re.search(r"```powershell\n(.*?)```", README, re.DOTALL)[1].replace(LAUNCHER, ITS_PYTHON).splitlines()


def unknown(line):
    """What of a line is neither a target of the Makefile nor what README tells people without make."""
    if line in windows_lines():
        return set()
    program, *words = re.sub(r"\$\{\{.*?\}\}", "VALUE", line).split()
    if program != "make":
        return {line}
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
    variables = set(re.findall(r"\$\((?:or \$\()?(?:if \$\()?([A-Z]+)\)", MAKEFILE))
    return {word for word in words if word.partition("=")[0] not in (variables if "=" in word else targets)}


@pytest.mark.parametrize("schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_workflows_keep_githubs_schema(schema):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *WORKFLOWS]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert len(WORKFLOWS) == 4 and outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_the_schema_refuses_a_broken_workflow(tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text("name: X\non: push\njobs:\n  one:\n    runs-on: ubuntu-24.04\n    step: []\n")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", broken]
    assert subprocess.run(command, capture_output=True).returncode == 1


def test_dependabot_keeps_its_schema():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.dependabot"]
    outcome = subprocess.run([*command, ROOT / ".github" / "dependabot.yml"], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_every_line_is_a_command_of_the_course():
    lines = lines_to_run()
    assert {"make test", "make run", "make slides slides-8k", "make animations", "make site"} <= lines
    assert {line: unknown(line) for line in lines if unknown(line)} == {}


@pytest.mark.parametrize("line", ["make tset", "make run LAB=M9-LAB-01", "pip install torch", "make run && rm -r x"])
def test_a_line_that_is_none_is_noticed(line):
    assert unknown(line)


def test_windows_runs_what_the_readme_says_in_its_order():
    written = [step["run"] for _, job, step in steps() if job == "windows" and "run" in step]
    assert written == windows_lines() and written[0] == ITS_PYTHON


def test_actions_are_pinned_to_one_version_each():
    used = {step["uses"] for _, _, step in steps() if "uses" in step}
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action) for action in used), used
    assert len({action.partition("@")[0] for action in used}) == len(used)


def test_no_job_may_write_but_those_that_publish():
    writes = set()
    for path in WORKFLOWS:
        workflow = read(path.stem)
        assert workflow["permissions"] == {"contents": "read"}, path.name
        writes |= {name for name, job in workflow["jobs"].items() if "write" in job.get("permissions", {}).values()}
    assert writes <= {"publish", "pages"}


def test_three_systems_with_every_supported_python():
    jobs = read("tests")["jobs"]
    assert {"linux", "macos", "windows"} <= set(jobs)
    weekly = read("weekly")["jobs"]["everywhere"]
    assert json.loads(weekly["with"]["pythons"]) == PYTHONS
    for system in ("linux", "macos", "windows"):
        pushed = re.search(r"inputs\.pythons \|\| '(.*?)'", jobs[system]["strategy"]["matrix"]["python"])[1]
        assert set(json.loads(pushed)) <= set(PYTHONS)
    assert f'requires-python = ">={PYTHONS[0]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_night_every_lab_that_has_a_model_on_the_hub_but_the_largest():
    nightly = read("nightly")
    labs = [lab for job in nightly["jobs"].values() for lab in job["strategy"]["matrix"]["lab"]]
    with_a_hub_model = {lab.id for lab in find_labs() if hub_sources(lab)}
    assert nightly["env"]["COURSE_CHECKPOINTS"] == "hub" and len(labs) == len(set(labs))
    assert with_a_hub_model - set(labs) == {"M9-LAB-06"}


def test_gated_models_wait_for_a_licence():
    licensed = read("nightly")["jobs"]["licensed"]
    runbook = (ROOT / "runbook.md").read_text(encoding="utf-8")
    gated = re.findall(r"^\| `[\w./-]+` \| [^|]+ \| yes \| ([^|]+) \|$", runbook, re.MULTILINE)
    assert set(licensed["strategy"]["matrix"]["lab"]) == {lab for labs in gated for lab in labs.split(", ")}
    assert licensed["if"] and "HF_TOKEN" in licensed["env"]
