"""Which labs there are, in which order they run, and how the command line names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Every lab in run order, by the stage of the course that it belongs to.
STAGES = {
    "Loading strategies": ("M9-LAB-01", "M9-LAB-APP-A", "M9-CODE-01"),
    "From GPT to Llama": ("M9-LAB-02", "M9-LAB-03"),
    "Families on their own": ("M9-LAB-04", "M9-LAB-05", "M9-LAB-06"),
    "The bridge to chapter 5": ("M9-LAB-07",),
    "Trust": ("M9-LAB-08", "M9-LAB-09"),
    "One workflow, and what comes next": ("M9-CODE-02", "M9-LAB-APP-B", "M9-LAB-APP-C"),
}
RUN_ORDER = tuple(lab for stage in STAGES.values() for lab in stage)

NOTEBOOKS_FOLDER = Path(__file__).resolve().parents[2] / "notebooks"


class LabError(ValueError):
    """A lab cannot be found, named or read; the message says where and what to do."""


@dataclass(frozen=True)
class Lab:
    """One lab: its id (``M9-LAB-01``) and its text notebook, the source of the pair."""

    id: str
    source: Path

    @property
    def notebook(self) -> Path:
        """The generated, executed half of the pair."""
        return self.source.with_suffix(".ipynb")

    @property
    def build_command(self) -> str:
        """What to type to bring the notebook up to date with its source."""
        return f"python -m course_helpers.labs build {self.id}"


def lab_id(path: Path) -> str:
    """The id a notebook's file name starts with; refuses a name that is not in ``RUN_ORDER``."""
    for known in RUN_ORDER:
        if path.stem == known or path.stem.startswith(f"{known}-"):
            return known
    raise LabError(
        f"{path}: the file name does not start with a known lab id.\n"
        f"  Expected: one of {', '.join(RUN_ORDER)}, then '-some-title.py'.\n"
        "  Next step: rename the file, or add its id to RUN_ORDER in course_helpers/labs/order.py."
    )


def find_labs(folder: Path = NOTEBOOKS_FOLDER) -> list[Lab]:
    """Every lab in ``folder`` in run order; an unknown id, a double id or a lone ``.ipynb`` is an error."""
    if not folder.is_dir():
        raise LabError(
            f"{folder}: there is no such folder, so there are no labs to work on.\n"
            "  Likely cause: course_helpers is installed without its repository.\n"
            "  Next step: name the folder with --notebooks FOLDER."
        )
    found: dict[str, Lab] = {}
    for source in sorted(folder.glob("*.py")):
        lab = Lab(lab_id(source), source)
        if lab.id in found:
            raise LabError(
                f"{source}: the id {lab.id} already belongs to {found[lab.id].source.name}.\n"
                "  Next step: give one of the two files another id."
            )
        found[lab.id] = lab
    for notebook in sorted(folder.glob("*.ipynb")):
        if not notebook.with_suffix(".py").is_file():
            raise LabError(
                f"{notebook}: there is no {notebook.stem}.py beside it; the .py is the source of every lab.\n"
                "  Likely cause: the .py was renamed or deleted.\n"
                f"  Next step: delete it, or make its source: jupytext --to py:percent {notebook}"
            )
    return [found[known] for known in RUN_ORDER if known in found]


def select_labs(labs: Sequence[Lab], names: Iterable[str]) -> list[Lab]:
    """The labs that ``names`` (ids, paths, unambiguous prefixes) mean, in run order; without names all."""
    wanted = [_select_one(labs, name) for name in names]
    return [lab for lab in labs if not wanted or lab in wanted]


def _select_one(labs: Sequence[Lab], name: str) -> Lab:
    key = (Path(name).stem if name.endswith((".py", ".ipynb")) else name).casefold()
    exact = [lab for lab in labs if key in (lab.id.casefold(), lab.source.stem.casefold())]
    matches = exact or [lab for lab in labs if lab.source.stem.casefold().startswith(key)]
    if len(matches) != 1:
        meant = ", ".join(lab.id for lab in matches or labs) or "no lab at all"
        problem = "fits more than one lab" if matches else "is no lab"
        raise LabError(f"'{name}' {problem}.\n  Choose one of: {meant}.")
    return matches[0]
