"""The comparison of two libraries' products, on small matrices; and its page."""

import json

import pytest

from benchmarks import products
from course_helpers.architectures import products as choice


def test_a_quick_run_writes_figures_and_page(tmp_path, capsys):
    products.main(["--quick", "--output", str(tmp_path)])
    report, page = json.loads((tmp_path / "products.json").read_text()), (tmp_path / "products.md").read_text()
    assert page in capsys.readouterr().out and report["machine"]["cpu"] in page
    assert len(report["products"]) == 2 * 3
    for one in report["products"]:
        assert len(one["seconds"]["MKL"]) == len(one["seconds"]["oneDNN"]) == report["rounds"] == 2
        assert f"{one['ratio']:.2f}" in page and one["ratio"] > 0


@pytest.mark.parametrize("intel", [True, False])
def test_what_the_package_takes_onednn_for_is_bold(monkeypatch, intel):
    monkeypatch.setattr(choice, "INTEL", intel)
    sizes = [(1, 1024, 1024, 0.8), (8, 1024, 1024, 1.1), (8, 192, 576, 0.5)]
    measured = [dict(zip(("rows", "outputs", "inputs", "ratio"), one, strict=True)) for one in sizes]
    measured.append({"rows": 1, "outputs": 192, "inputs": 576, "ratio": 0.4})
    about = {"cpu": "Some processor", "cores": 2, "packages": {"torch": "2"}, "date": "2030-01-01"}
    page = products.table({"machine": about, "processor": "P", "threads": 2, "rounds": 3, "products": measured})
    marked = {"0.80": not intel, "1.10": True, "0.50": not intel, "0.40": not intel}
    assert {text: f"**{text}**" in page for text in marked} == marked
