"""What the doctor looks at, gathered in one place: tests put others in its stead. Nothing here asks the network."""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from ..labs.records import provenance
from ..loaders.hub import MODEL_FOLDER
from ..loaders.hub_budget import free_disk
from ..planning.machines import Memory, memory_here

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"


@dataclass(frozen=True)
class Device:
    """A device that torch can use here."""

    name: str  # "cpu", "cuda:0", "mps"
    title: str
    memory: int  # bytes
    bfloat16: bool  # in hardware; else every operation converts to float32 and back


@dataclass(frozen=True)
class Surroundings:
    """A computer, an environment, a cache."""

    python: tuple[int, int, int]
    requirements: Mapping[str, str]  # package -> the least version that will do
    versions: Mapping[str, str]  # of those that are installed
    memory: Memory
    devices: tuple[Device, ...]
    cores: int
    threads: int  # that torch uses
    cache: Path  # of the hub's models
    cached: Mapping[str, int]  # hub id -> bytes in it
    free_disk: int
    writable: bool  # the cache, or the folder in which it will be made
    environment: Mapping[str, str]
    token: bool  # whether there is one; nobody needs to see it
    bundled: tuple[str, ...]  # the models that came with the repository and are there


def look_around() -> Surroundings:
    """This computer as it is now."""
    from huggingface_hub import constants, get_token

    from ..loaders.sources import BUNDLED

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    requirements = read_requirements()
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    return Surroundings(
        python=sys.version_info[:3],
        requirements=requirements,
        versions={name: version for name in requirements if (version := version_of(name))},
        memory=memory_here(),
        devices=tuple(devices()),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        cache=cache,
        cached=cached_models(cache),
        free_disk=free_disk(cache),
        writable=os.access(existing, os.W_OK),
        environment=dict(os.environ),
        token=get_token() is not None,
        bundled=tuple(sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))),
    )


def read_requirements(path: Path = REQUIREMENTS) -> dict[str, str]:
    """What this package asks for: its requirements.txt, or, where only the package was installed, its metadata."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = metadata.requires("course-helpers") or []
    pairs = (line.split(";")[0].split(">=") for line in lines)
    return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def devices() -> Iterator[Device]:
    """The CPU, and every GPU that torch sees."""
    yield Device("cpu", str(provenance()["cpu"]), memory_here().total, cpu_has_bfloat16())
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        brain = torch.version.hip is not None or about.major >= 8  # compute capability 8.0: Ampere
        yield Device(
            f"cuda:{index}", f"{about.name}, capability {about.major}.{about.minor}", about.total_memory, brain
        )
    if torch.backends.mps.is_available():
        yield Device("mps", "Apple GPU", torch.mps.recommended_max_memory(), True)


def cpu_has_bfloat16() -> bool:
    """Whether products of bfloat16 matrices run in hardware. torch has this under names of its own only."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()
    except (AttributeError, RuntimeError):
        return False


def cached_models(cache: Path) -> dict[str, int]:
    """The models in the hub's cache, and how many bytes of each are here."""
    folders = cache.glob(f"{MODEL_FOLDER}*") if cache.is_dir() else ()
    sizes = {}
    for folder in folders:
        files = (path for path in (folder / "blobs").glob("*") if path.is_file())
        sizes[folder.name.removeprefix(MODEL_FOLDER).replace("--", "/")] = sum(path.stat().st_size for path in files)
    return sizes
