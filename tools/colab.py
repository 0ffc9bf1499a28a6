"""Makes a Colab notebook ready for the course: installs what is missing, and leaves PyTorch and NumPy as they are.

The first cell of every Colab copy (``python -m course_helpers.labs copies --colab ADDRESS``) runs this file with
``%run``, in the notebook's own Python. It needs nothing but the standard library and ``packaging``, which Colab has.
"""

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
#: Colab's builds of these fit its drivers, and everything else there was built for them: they are never exchanged.
KEPT = ("torch", "numpy")
#: The line of requirements.txt below which nothing is needed to run a lab in Colab.
END_OF_NEEDS = "# Not for Colab"


def installed_versions() -> dict[str, str]:
    """Version of every installed package, by normalised name."""
    return {canonicalize_name(found.metadata["Name"]): found.version for found in metadata.distributions()}


def needs_of(requirements: str) -> list[Requirement]:
    """What a lab imports: the lines of a requirements file above END_OF_NEEDS."""
    lines = requirements.partition(END_OF_NEEDS)[0].splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def unsatisfied(requirements: str, installed: Mapping[str, str]) -> list[Requirement]:
    """What is not there, or too old."""

    def satisfied(need: Requirement) -> bool:
        version = installed.get(canonicalize_name(need.name))
        return version is not None and need.specifier.contains(version, prereleases=True)

    return [need for need in needs_of(requirements) if not satisfied(need)]


def install(needs: Sequence[Requirement], installed: Mapping[str, str], call: Callable = subprocess.check_call) -> None:
    """pip install, held back by a constraint on each of KEPT: no dependency of a dependency can exchange them."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "kept.txt"
        pins.write_text("".join(f"{name}=={installed[name]}\n" for name in KEPT if name in installed))
        call([sys.executable, "-m", "pip", "install", "--quiet", *map(str, needs), "-c", str(pins)])


def prepare(root: Path = ROOT, enter: Callable = os.chdir) -> str:
    """Install what is missing, make ``import course_helpers`` work, go to the labs' folder; returns a line to show.

    Raises RuntimeError where PyTorch or NumPy is missing or too old, before anything is changed.
    """
    requirements = (root / "requirements.txt").read_text(encoding="utf-8")
    installed = installed_versions()
    needs = unsatisfied(requirements, installed)
    hopeless = [str(need) for need in needs if need.name in KEPT]
    if hopeless:
        raise RuntimeError(
            f"This notebook's Python lacks {' and '.join(hopeless)}.\n"
            "  Likely cause: an old Colab runtime, or a Python of your own.\n"
            "  Next step: Runtime > Change runtime type > the latest version; outside Colab: pip install torch."
        )
    if needs:
        install(needs, installed)
        importlib.invalidate_caches()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    enter(root / "notebooks")
    names = [need.name for need in needs]
    text = f"Ready. Installed: {', '.join(names) or 'nothing'}. PyTorch stays as it was: {installed['torch']}."
    stale = ", ".join(name for name in names if name in sys.modules)
    return text + (f"\nRestart the session, then go on below: {stale} was loaded already." if stale else "")


if __name__ == "__main__":
    print(prepare())
