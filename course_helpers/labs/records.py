"""Results on disk: written whole or not at all, and never without saying where they come from."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

RESULTS_VARIABLE = "COURSE_RESULTS"
RECORDED_PACKAGES = ("torch", "transformers", "safetensors", "numpy")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block has succeeded: so ``path`` is either its
    old or its new self, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text``, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: object) -> None:
    """``write_text`` for JSON, indented for reading and for line-wise diffs."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def provenance() -> dict[str, object]:
    """Date, versions and machine: what anybody needs to judge a measured number."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
    }


def record_results(lab: str, results: Mapping[str, object]) -> Path | None:
    """Write a lab's measurements to ``<lab>.json`` in the folder that the variable COURSE_RESULTS names.

    ``python -m course_helpers.labs run`` names ``results/``. Without the variable nothing is written, so that
    reading and testing a lab leaves the repository as it was. Returns the file written, or None.
    """
    folder = os.environ.get(RESULTS_VARIABLE)
    if not folder:
        return None
    path = Path(folder) / f"{lab}.json"
    write_json(path, {"lab": lab, "provenance": provenance(), "results": dict(results)})
    return path


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # only Linux has this file
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
