"""How fast CRC32C is in numpy, beside reading the same bytes from a file that is in memory already.

    python benchmarks/crc32c.py [MiB]

`google-crc32c`, a wrapper of a C library, is measured too where it is installed; the package does not need it.
"""

import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from course_helpers.loaders.crc32c import crc32c, remainders


def megabytes_per_second(action: Callable[[], object], size: int, rounds: int = 9) -> float:
    """The best of several rounds, in 10^6 bytes a second."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return size / min(seconds) / 1e6


def read_into(target: np.ndarray, path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        file.readinto(target)


def main() -> None:
    size = int(sys.argv[1] if len(sys.argv) > 1 else 256) << 20
    data = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    remainders()  # once in a process
    rows = {"CRC32C in numpy": lambda: crc32c(data), "CRC32C, 100 kB": lambda: crc32c(data[:100_000])}
    with tempfile.NamedTemporaryFile() as file:
        data.tofile(file.name)
        target = np.empty(size, dtype=np.uint8)
        rows["reading it from a cached file"] = lambda: read_into(target, file.name)
        try:
            import google_crc32c

            content = data.tobytes()
            rows["google-crc32c"] = lambda: google_crc32c.value(content)
        except ImportError:
            pass
        for name, action in rows.items():
            print(f"{name:<32}{megabytes_per_second(action, 100_000 if '100 kB' in name else size):>8,.0f} MB/s")


if __name__ == "__main__":
    main()
