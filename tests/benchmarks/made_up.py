"""A report of the speed benchmark with figures that nobody measured."""


def measure(
    title: str, tokens: int, seconds: dict[str, list[float]], floor: float | None = None, rows: int = 1
) -> dict:
    rounds = len(next(iter(seconds.values())))
    rates = {"F.linear": [8e9] * rounds, "oneDNN": [10e9] * rounds}
    floors = None if floor is None else {name: [floor] * len(values) for name, values in seconds.items()}
    return {
        "measure": title,
        "rows": rows,
        "tokens": tokens,
        "bytes": None if floor is None else floor * 10e9,
        "floor": floors,
        "rates": rates,
        "seconds": seconds,
    }


SYSTEMS = [
    {"name": "course_helpers, plain", "who": "course_helpers", "exact": True},
    {"name": "course_helpers, int8", "who": "course_helpers", "exact": False},
    {"name": "transformers, sdpa, dynamic", "who": "transformers", "exact": True},
    {"name": "llms-from-scratch", "who": "llms-from-scratch", "exact": True},
]


def case(title: str, *measures: dict) -> dict:
    systems = [one | {"compiled": False, "note": f"the {one['who']} way", "load_seconds": 1.5} for one in SYSTEMS]
    check = {"system": SYSTEMS[0]["name"], "difference": 2e-7, "tolerance": 1e-4, "same_tokens": 9, "of": 9}
    held = {"course_helpers": 2000, "transformers, dynamic": 3000}
    return {
        "shape": title,
        "dtype": "float32",
        "bytes": 10**9,
        "together": True,
        "systems": systems,
        "left_out": [{"name": "llms-from-scratch", "reason": "it has none"}],
        "checks": [check],
        "measures": list(measures),
        "caches": [{"positions": 1024, "formula": 2000, "held": held}],
    }


def seconds(ours: float, int8: float, transformers: float, scratch: float) -> dict[str, list[float]]:
    """Three rounds, each a little slower than the one before."""
    values = (ours, int8, transformers, scratch)
    return {one["name"]: [value, value * 1.01, value * 1.02] for one, value in zip(SYSTEMS, values, strict=True)}


def report(*cases: dict, device: str = "CPU") -> dict:
    about = {"cpu": "Some processor", "cores": 2, "memory_gib": 8.0, "python": "3.11", "packages": {"torch": "2"}}
    about |= {"date": "2030-01-01", "threads": 2, "device": device, "device_memory_gib": 80.0, "cuda": "13"}
    lengths = {"prompt": 32, "spans": [128], "prefills": [512], "rows": 8}
    return {
        "machine": about,
        "command": "python -m benchmarks.speed",
        "rounds": 3,
        "minutes": 1.0,
        "lengths": lengths,
        "cases": list(cases),
    }
