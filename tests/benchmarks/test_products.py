"""The comparison of two libraries' products, on small matrices; and its page."""

import json

import pytest
import torch

from benchmarks import products
from course_helpers.architectures import products as choice


def test_a_quick_run_writes_figures_and_page(tmp_path, capsys):
    products.main(["--quick", "--output", str(tmp_path)])
    report, page = json.loads((tmp_path / "products.json").read_text()), (tmp_path / "products.md").read_text()
    assert page in capsys.readouterr().out and report["machine"]["cpu"] in page
    assert len(report["products"]) == 2 * 3
    for one in report["products"]:
        assert {"MKL", "oneDNN"} <= one["seconds"].keys() and one["ratios"].keys() == one["seconds"].keys() - {"MKL"}
        assert {len(turns) for turns in one["seconds"].values()} == {report["rounds"]} == {2}
        assert all(f"{ratio:.2f}" in page and ratio > 0 for ratio in one["ratios"].values())
        assert ("MKL, shared" in one["ratios"]) == (one["rows"] == 1)


@pytest.mark.parametrize("intel", [True, False])
def test_what_the_package_takes_is_bold(monkeypatch, intel):
    monkeypatch.setattr(choice, "INTEL", intel)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    sizes = [
        (1, 1024, 1024, {"oneDNN": 0.8, "MKL, shared": 0.9}),
        (1, 192, 576, {"oneDNN": 0.4, "MKL, shared": 0.7}),
        (8, 1024, 1024, {"oneDNN": 1.1}),
        (8, 192, 576, {"oneDNN": 0.5}),
    ]
    measured = [dict(zip(("rows", "outputs", "inputs", "ratios"), one, strict=True)) for one in sizes]
    about = {"cpu": "Some processor", "cores": 2, "packages": {"torch": "2"}, "date": "2030-01-01"}
    page = products.table({"machine": about, "processor": "P", "threads": 2, "rounds": 3, "products": measured})
    marked = {"0.80": not intel, "0.90": False, "0.40": False, "0.70": not intel, "1.10": True, "0.50": not intel}
    assert {text: f"**{text}**" in page for text in marked} == marked
