"""Measuring memory: peaks that are gone when the block ends are seen, and formulas equal what is really held."""

from pathlib import Path

import pytest
import torch

from course_helpers import FAMILIES, memory, track_memory
from course_helpers.memory import kv_cache_bytes, measure_in_fresh_process, parameter_count
from tests.tiny_models import EXAMPLES, ours

SIZE_MB = 96


def spike() -> None:
    """Hold SIZE_MB for a moment: written to, so that the pages are really there."""
    torch.ones(SIZE_MB * 2**18).sum()


def test_a_passing_peak_is_seen():
    with track_memory() as use:
        spike()
    assert SIZE_MB * 0.95 < use.added_peak_mb < SIZE_MB * 1.5
    assert use.end_rss_mb - use.start_rss_mb < SIZE_MB * 0.5
    assert use.seconds > 0
    assert use.peak_cuda_mb is None or torch.cuda.is_available()


def test_where_the_kernel_keeps_no_mark_samples_are_taken(monkeypatch):
    monkeypatch.setattr(memory, "CLEAR_REFS", Path("no-such-file/anywhere"))
    with track_memory(interval=0.0005) as use:
        for _ in range(20):
            spike()
    assert use.source == "sampled"
    assert use.added_peak_mb > SIZE_MB * 0.5


def test_figures_are_there_after_an_error_too():
    with pytest.raises(ZeroDivisionError), track_memory() as use:
        spike()
        raise ZeroDivisionError
    assert use.added_peak_mb > SIZE_MB * 0.95


def test_a_fresh_process_measures_the_statement_and_not_the_setup():
    keep = f"import torch; kept = torch.ones({SIZE_MB} * 2**18)"
    assert measure_in_fresh_process("pass", setup=keep).added_peak_mb < SIZE_MB * 0.2
    use = measure_in_fresh_process(f"more = torch.ones({SIZE_MB} * 2**18); print('to standard output')", setup=keep)
    assert SIZE_MB * 0.95 < use.added_peak_mb < SIZE_MB * 1.3


def test_an_error_in_the_fresh_process_is_told():
    with pytest.raises(RuntimeError, match="no such checkpoint"):
        measure_in_fresh_process("load_model('nowhere')", "from course_helpers import load_model")


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formulas_are_exact(name, dtype):
    model = ours(EXAMPLES[name])
    cache = model.make_cache(3, 29, dtype=dtype)
    assert kv_cache_bytes(model.config, 29, batch_size=3, dtype=dtype) == cache.nbytes
    assert parameter_count(FAMILIES[name].model, model.config) == sum(p.numel() for p in model.parameters())
