"""The films, each rendered once for all the tests that look at it."""

from functools import cache

import pytest


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """recorded(name): the recording of a film (see `checks`)."""
    from tests.animations.checks import record

    return cache(lambda name: record(name, tmp_path_factory.mktemp(name)))
