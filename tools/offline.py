"""The course's packages for rooms without a network. Needs nothing but Python 3.11 or later with pip.

python offline.py download [-- PIP OPTIONS]   where there is a network: fetch every package of wheels.txt into wheels/
python offline.py install COURSE              in the room: make COURSE/.venv from wheels/; COURSE is the unpacked course
python offline.py check                       whether wheels/ holds every package of wheels.txt

A download that was interrupted goes on where it stopped. The list is for machines of the kind in its first line.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None, here: Path = HERE) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("download").add_argument("options", nargs="*", help="for pip, after --")
    commands.add_parser("install").add_argument("course", type=Path)
    commands.add_parser("check")
    chosen = parser.parse_args(arguments)
    if chosen.command == "download":
        return download(here, chosen.options)
    return install(here, chosen.course) if chosen.command == "install" else check(here)


def download(here: Path, options: list[str]) -> int:
    """Fetch what is missing; 0 when all is there."""
    (here / "wheels").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(here / "wheels")]
    failed = subprocess.run([*command, "--requirement", str(here / "wheels.txt"), *options], check=False).returncode
    return failed or check(here)


def check(here: Path) -> int:
    """Name what is missing; 0 when nothing is."""
    lacking = missing(here)
    for pin in lacking:
        print(f"missing: {pin}", file=sys.stderr)
    if lacking:
        print("Next step, where there is a network: python offline.py download", file=sys.stderr)
    else:
        print(f"{len(pins(here))} packages are there.", file=sys.stderr)
    return 1 if lacking else 0


def install(here: Path, course: Path) -> int:
    """A virtual environment in the course's folder, from the files here and nothing else."""
    if check(here):
        return 1
    if not (course / "pyproject.toml").is_file():
        print(f"{course} has no pyproject.toml. Next step: unpack course.zip, and name its folder.", file=sys.stderr)
        return 1
    environment = course / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--no-index"]
    files = ["--find-links", str(here / "wheels"), "--requirement", str(here / "wheels.txt")]
    subprocess.run([*pip, *files], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(course)], check=True)
    print(f"Ready. Next step, in {course}: {python} -m course_helpers.labs run M9-LAB-01", file=sys.stderr)
    return 0


def pins(here: Path) -> list[str]:
    """The lines of wheels.txt: NAME==VERSION."""
    lines = (here / "wheels.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def missing(here: Path) -> list[str]:
    """Pins without a file in wheels/."""
    found = {_key(*path.name.split("-")[:2]) for path in (here / "wheels").glob("*-*")}
    return [pin for pin in pins(here) if _key(*pin.split("==")) not in found]


def _key(name: str, version: str) -> tuple[str, str]:
    # Files write a name with underscores, may add a build to the version (2.13.0+cpu), and sdists end in .tar.gz.
    return re.sub(r"[-_.]+", "-", name).lower(), re.sub(r"(\+.*|\.tar\.gz|\.zip)$", "", version)


if __name__ == "__main__":
    sys.exit(main())
