"""The lines of the doctor's report. Each check takes the surroundings and returns lines; none looks elsewhere."""

import re
from collections.abc import Callable, Iterator

import torch

from ..dtypes import short
from ..errors import CheckpointError
from ..families import FAMILIES
from ..loaders.hub_budget import download_limit, readable
from ..planner import plan
from ..planning.family_checklists import checklist_of, needed_fields
from ..planning.machines import CPU_BASE, GPU_BASE, SHARE, Machine
from .lines import FAILED, Line, line
from .surroundings import Surroundings

LEAST_PYTHON = (3, 11)
#: What needs a package; packages that are not listed are for the labs and the tests only.
NEEDED = {
    "torch": "everything",
    "numpy": "reading checkpoints",
    "safetensors": "reading and writing checkpoints",
    "psutil": "measuring memory",
    "huggingface_hub": "downloads",
    "tokenizers": "the tokenizers of Qwen3, Gemma 3 and OLMo 3",
    "tiktoken": "the tokenizers of GPT-2 and Llama 3",
    "sentencepiece": "the tokenizer of Llama 2",
    "jinja2": "chat formats",
}
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
ON = {"1", "on", "yes", "true"}  # as huggingface_hub reads a switch
LITTLE_DISK, LITTLE_MEMORY = 5 * 10**9, 2 * 10**9  # room for a model of some 2 billion parameters; for the bundled ones
SOFTWARE, HARDWARE, HUB, FAMILY = "Software", "Hardware", "Model hub", "Families"


def check_python(around: Surroundings) -> Iterator[Line]:
    found, least = (".".join(map(str, version)) for version in (around.python, LEAST_PYTHON))
    old = around.python[:2] < LEAST_PYTHON
    yield line(SOFTWARE, "Python", found, old, f"install Python {least} or later, and set up .venv anew", FAILED)


def check_libraries(around: Surroundings) -> Iterator[Line]:
    """A line for each library that is needed, and one for all others together."""
    wrong = {name: least for name, least in around.requirements.items() if too_old(around.versions.get(name), least)}
    for name, use in NEEDED.items():
        least, found = around.requirements.get(name, "0"), around.versions.get(name, "not installed")
        step = f'pip install "{name}>={least}": needed for {use}'
        yield line(SOFTWARE, name, found, name in wrong, step, FAILED)
    others = [name for name in wrong if name not in NEEDED]
    found = "all there" if not others else "missing or too old: " + ", ".join(others)
    step = "pip install -r requirements.txt, for the labs and the tests; loading and generating work without"
    yield line(SOFTWARE, "optional libraries", found, bool(others), step)


def too_old(version: str | None, least: str) -> bool:
    """Whether a version is missing or below another, by the numbers that both begin with."""
    return version is None or numbers(version) < numbers(least)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)


def check_bundled(around: Surroundings) -> Iterator[Line]:
    expected = {family.tiny for family in FAMILIES.values() if family.tiny}
    missing = sorted(expected.difference(around.bundled))
    found = f"{len(expected) - len(missing)} of {len(expected)}" + (
        f"; missing: {', '.join(missing)}" if missing else ""
    )
    step = "clone the repository with all its files; only the package was installed, or checkpoints/ is not whole"
    yield line(SOFTWARE, "bundled models", found, bool(missing), step)


def check_memory(around: Surroundings) -> Iterator[Line]:
    total, available = around.memory.total, around.memory.available
    found = f"{readable(total)} in all, {readable(available)} available"
    found += "; the limit of this container" if around.memory.limit is not None else ""
    yield line(HARDWARE, "memory", found, available < LITTLE_MEMORY, "close other programs, or take the smallest sizes")


def check_threads(around: Surroundings) -> Iterator[Line]:
    few = around.threads < around.cores
    step = "unset OMP_NUM_THREADS, or torch.set_num_threads(...), to use all cores for generating"
    yield line(HARDWARE, "threads", f"{around.threads} for {around.cores} cores", few, step)


def check_devices(around: Surroundings) -> Iterator[Line]:
    for device in around.devices:
        found = (
            f"{device.title}, {readable(device.memory)}; bfloat16 "
            + ("" if device.bfloat16 else "not ")
            + "in hardware"
        )
        step = "it works and saves memory, but float32 (on a GPU: float16) computes faster; float16 is not for Gemma 3"
        yield line(HARDWARE, device.name, found, not device.bfloat16, step)


def check_cache(around: Surroundings) -> Iterator[Line]:
    size = sum(around.cached.values())
    found = f"{len(around.cached)} models, {readable(size)}, in {around.cache}"
    step = "let HF_HOME name a folder that you may write to"
    yield line(HUB, "cache", found, not around.writable, step)
    step = "make room (`hf cache ls` lists what is there), or let HF_HOME name a folder on another disk"
    yield line(HUB, "disk", f"{readable(around.free_disk)} free there", around.free_disk < LITTLE_DISK, step)


def check_switches(around: Surroundings) -> Iterator[Line]:
    on = [name for name in OFFLINE if around.environment.get(name, "").lower() in ON]
    step = f"unset {' and '.join(on)} to download; what is in the cache, and the bundled models, need no network"
    yield line(HUB, "offline switches", " and ".join(on) + " on" if on else "off", bool(on), step)
    try:
        yield line(HUB, "download limit", readable(download_limit()))
    except CheckpointError as error:
        yield line(HUB, "download limit", f"{error.field} is {error.found}", True, error.next_step)


def check_token(around: Surroundings) -> Iterator[Line]:
    gated = ", ".join(family.title for family in FAMILIES.values() if family.gated)
    found = "there is one" if around.token else f"none; only these ask for one: {gated}"
    yield line(HUB, "access token", found)


#: Every check of the computer, in the order of the report.
GENERAL: tuple[Callable[[Surroundings], Iterator[Line]], ...] = (
    check_python,
    check_libraries,
    check_bundled,
    check_memory,
    check_threads,
    check_devices,
    check_cache,
    check_switches,
    check_token,
)


def check_network() -> Line:
    """Ask the hub for one answer, of whatever kind."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except HTTPError:
        pass  # it answers, and has no page there
    except OSError as error:
        step = "check the connection and the proxy; the bundled models need no network"
        return line(HUB, "network", f"no answer: {error}", True, step)
    return line(HUB, "network", "the hub answers")


def machine_of(around: Surroundings) -> Machine:
    """Where models would be run: the last of the devices, a GPU if there is one; its memory only."""
    device = around.devices[-1]
    if device.name == "cpu":
        types = dict.fromkeys((torch.bfloat16, torch.float32))
        return Machine("this computer", "cpu", int(around.memory.total * SHARE), types, CPU_BASE)
    types = dict.fromkeys((torch.bfloat16,) * device.bfloat16 + (torch.float16, torch.float32))
    return Machine(device.title, device.name, device.memory, types, GPU_BASE, host=int(around.memory.total * SHARE))


def check_family(around: Surroundings, name: str) -> Iterator[Line]:
    """Which sizes of a family fit here, how the smallest is loaded, and what its owner asks for."""
    family, found = FAMILIES[name], plan("run", machine_of(around), family=name)
    sizes = f"{len(found.choices)} of {len(family.presets)} sizes fit"
    best = found.best
    tiny = family.tiny or "tiny-gpt2"
    step = f'run a bundled one: load_model("{tiny}")'
    yield line(FAMILY, name, f"{sizes}; {best.line}" if best else sizes, best is None, step)
    terms = f"{family.licence}; " + ("gated: an account, and its terms accepted" if family.gated else "not gated")
    step = f"accept its terms on its page and run `hf auth login`, or begin with {tiny}, which needs neither"
    yield line(FAMILY, f"{name}: licence", terms, family.gated and not around.token, step)


def describe_family(around: Surroundings, name: str) -> Iterator[Line]:
    """The family's checklist: every size, what must lie in the folder, types, and known traps."""
    family, checklist = FAMILIES[name], checklist_of(FAMILIES[name])
    section, found = f"Checklist of {family.title}", plan("run", machine_of(around), family=name)
    for choice in found.choices:
        yield line(section, choice.hub_id, f"{readable(choice.peak)} at the peak: {choice.line}")
    for refusal in found.refused:
        remedies = " or ".join(refusal.remedies)
        yield line(section, refusal.hub_id, "; ".join(refusal.reasons), True, f"would do: {remedies}")
    yield line(section, "config.json", "needs " + ", ".join(needed_fields(family.config)))
    yield line(section, "tokenizer", f"{family.tokenizer}: {', '.join(checklist.tokenizer_files)}")
    unsafe = "".join(f"; never {short(dtype)}: {reason}" for dtype, reason in checklist.unsafe.items())
    yield line(section, "type", f"the files hold {short(checklist.stored)}{unsafe}")
    for number, trap in enumerate(checklist.traps, start=1):
        yield line(section, f"trap {number}", trap)
