"""Fixtures of the loaders' tests."""

import pytest

from tests.loaders.fake_hub import running, use_hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of this machine, empty at first; huggingface_hub asks it and caches in `tmp_path / "cache"`."""
    with running() as server, use_hub(monkeypatch, server, tmp_path / "cache"):
        yield server
