"""Measuring memory: peaks that are gone when the block ends are seen, and each kind of memory under its own name."""

import json
import sys
import time
from dataclasses import asdict

import pytest
import torch

from course_helpers import sampling, track_memory
from course_helpers.memory import MemoryUse, Sample, measure_in_subprocess
from course_helpers.sampling import Sampler

SIZE_MB = 96

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the kinds of memory apart")


def spike() -> None:
    """Hold SIZE_MB for a moment: written to, so that the pages are really there."""
    torch.ones(SIZE_MB * 2**18).sum()


@pytest.fixture
def file(tmp_path):
    """A file of SIZE_MB."""
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE_MB * 2**20))
    return path


def test_a_passing_peak_is_seen():
    with track_memory() as use:
        spike()
    assert SIZE_MB * 0.95 < use.added_peak_mb < SIZE_MB * 1.5
    assert use.end_rss_mb - use.start_rss_mb < SIZE_MB * 0.5
    assert use.seconds > 0
    assert use.peak_cuda_mb is None or torch.cuda.is_available()
    assert (use.peak_cuda_mb is None) == (use.peak_cuda_reserved_mb is None)


def test_another_system_is_sampled_and_says_what_it_cannot_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(sampling, "PROC", tmp_path)
    with track_memory(interval=0.0005) as use:
        for _ in range(20):
            spike()
    assert use.source == "sampled"
    assert use.added_peak_mb > SIZE_MB * 0.5
    assert use.peak_anonymous_mb is use.added_anonymous_mb is use.added_file_mb is None
    assert {sample.anonymous_mb for sample in use.timeline} == {None}


def test_figures_are_there_after_an_error_too():
    with pytest.raises(ZeroDivisionError), track_memory() as use:
        spike()
        raise ZeroDivisionError
    assert use.added_peak_mb > SIZE_MB * 0.95


@only_linux
def test_a_mapped_file_is_told_from_memory_of_its_own(file):
    with track_memory() as use:
        mapped = torch.from_file(str(file), size=SIZE_MB * 2**18)
        mapped.sum()
    assert SIZE_MB * 0.95 < use.added_file_mb < SIZE_MB * 1.1 and use.added_anonymous_mb < SIZE_MB * 0.1
    with track_memory() as use:
        own = mapped.clone()
    assert SIZE_MB * 0.95 < use.added_anonymous_mb < SIZE_MB * 1.1 and use.added_file_mb < SIZE_MB * 0.1
    del mapped, own


def test_the_timeline_runs_from_start_to_end_and_bounds_the_peaks():
    with track_memory(interval=0.001) as use:
        held = torch.ones(SIZE_MB * 2**18)
        time.sleep(0.05)
        del held
        time.sleep(0.05)
    times = [sample.seconds for sample in use.timeline]
    assert times == sorted(times) and 0 <= times[0] < 0.05 and times[-1] >= use.seconds
    assert len(times) > 10
    sampled = max(sample.resident_mb for sample in use.timeline)
    assert use.start_rss_mb + SIZE_MB * 0.95 < sampled <= use.peak_rss_mb
    if use.start_anonymous_mb is not None:
        assert all(abs(one.anonymous_mb + one.file_mb - one.resident_mb) < 1e-6 for one in use.timeline)


def test_a_long_timeline_is_thinned_and_keeps_its_peak(monkeypatch):
    monkeypatch.setattr(sampling, "MAX_SAMPLES", 8)
    sampler = Sampler(pid=-1, interval=1000, started=0.0)
    for second in range(1000):
        sampler.keep(Sample(float(second), 5.0 if second == 421 else 1.0, 1.0, 0.0))
    samples = sampler.stop()
    assert 4 <= len(samples) <= 8
    assert max(samples, key=lambda one: one.resident_mb).seconds == 421
    assert [one.seconds for one in samples] == sorted(one.seconds for one in samples)
    assert samples[-1].seconds > 800


def test_a_subprocess_measures_the_statement_and_not_the_setup():
    keep = f"import torch; kept = torch.ones({SIZE_MB} * 2**18)"
    assert measure_in_subprocess("pass", setup=keep).added_peak_mb < SIZE_MB * 0.2
    use = measure_in_subprocess(f"more = torch.ones({SIZE_MB} * 2**18); print('to standard output')", setup=keep)
    assert SIZE_MB * 0.95 < use.added_peak_mb < SIZE_MB * 1.3


@only_linux
def test_a_subprocess_is_sampled_even_while_it_holds_pythons_lock(file):
    """bytes.join, len(…) of a mapping and the like never let another thread of their own process run."""
    statement = f"first = bytearray({SIZE_MB} * 2**20); second = first[:]; del second; held = mapped.sum()"
    use = measure_in_subprocess(statement, f"import numpy; mapped = numpy.memmap({str(file)!r}, mode='r')")
    assert SIZE_MB * 1.9 < use.added_anonymous_mb < SIZE_MB * 2.2
    assert SIZE_MB * 0.95 < use.added_file_mb < SIZE_MB * 1.2
    assert len(use.timeline) > 10
    assert use.timeline[0].resident_mb == pytest.approx(use.start_rss_mb)
    assert use.timeline[-1].seconds == pytest.approx(use.seconds, abs=0.1)


def test_an_error_in_the_subprocess_is_told():
    with pytest.raises(RuntimeError, match="no such checkpoint"):
        measure_in_subprocess("load_model('nowhere')", "from course_helpers import load_model")
    with pytest.raises(RuntimeError, match="No module named 'nothing'"):
        measure_in_subprocess("pass", "import nothing")
    with pytest.raises(RuntimeError, match="in its own process"):
        measure_in_subprocess("import os; os._exit(3)")


def test_a_use_survives_json():
    with track_memory() as use:
        spike()
    fields = json.loads(json.dumps(asdict(use)))
    fields["timeline"] = [Sample(*sample) for sample in fields["timeline"]]
    assert MemoryUse(**fields) == use


@pytest.mark.parametrize("over_start", [False, True])
@pytest.mark.parametrize("kinds", [True, False])
def test_the_timeline_is_drawn(over_start, kinds):
    use = MemoryUse(
        10, 60, 40, 10 * kinds or None, 40 * kinds or None, 0 * kinds if kinds else None, 20 * kinds or None
    )
    use.timeline = [
        Sample(second, own + file, own if kinds else None, file if kinds else None)
        for second, own, file in ((0.0, 10.0, 0.0), (0.5, 40.0, 20.0), (1.0, 40.0, 0.0))
    ]
    ax = use.plot(over_start=over_start)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(labels) == len(ax.collections) == (2 if kinds else 1)
    tops = [band.get_paths()[0].vertices[:, 1].max() for band in ax.collections]
    assert tops[-1] == (50 if over_start else 60)
    assert any("peak" in text.get_text() for text in ax.texts)
    assert use.plot(ax) is ax
