"""Settings that every test shares."""

import gc
import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from slides import browser

# Sums depend on the number of threads, and the tests themselves already use every core.
torch.set_num_threads(1)

# The same examples on every machine and every run; how long one takes says nothing about its correctness.
settings.register_profile(
    "course", derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("course")


def pytest_collection_finish() -> None:
    """What was imported stays to the end: the garbage collector need not look through it again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def chromium():
    """For tests that need a browser: skipped without one, but never in continuous integration."""
    try:
        return browser.chromium()
    except browser.NoBrowser as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
