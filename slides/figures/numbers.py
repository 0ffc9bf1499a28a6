"""Numbers for figures: read from what the labs and benchmarks recorded, never without where they come from.

A file without provenance is refused. A file that says `"sample": true` is drawn only with the word "sample" in the line
under the figure, so that no invented number can pass for a measured one.
"""

import json
from pathlib import Path
from typing import Any

from .svg import Drawing

ROOT = Path(__file__).parents[2]
RESULTS, BENCHMARKS = ROOT / "results", ROOT / "benchmarks" / "results"
COMPUTED = "Computed at build time from course_helpers"


def measured(drawing: Drawing, lab: str, folder: Path = RESULTS) -> dict[str, Any]:
    """What `results/<lab>.json` recorded; its provenance is printed under the figure. Raises ValueError without one."""
    path = folder / f"{lab}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    origin = record.get("provenance") or record.get("machine") or {}
    missing = [key for key in ("date", "cpu", "cores", "packages") if not origin.get(key)]
    if missing:
        raise ValueError(f"{path.name} does not say where its numbers come from: {', '.join(missing)} missing")
    kind = "Sample data" if record.get("sample") else "Measured"
    machine = f"{origin['cpu']}, {origin['cores']} cores, torch {origin['packages']['torch']}"
    drawing.source(f"{kind}: {lab}, {origin['date'][:10]}, {machine}")
    return record.get("results", record)


def computed(drawing: Drawing, what: str) -> None:
    """Says under the figure that the package computed what is drawn: `what` names the configs or formulas."""
    drawing.source(f"{COMPUTED}: {what}")
