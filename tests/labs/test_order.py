"""Which labs are found, in which order, and what the command line may call them."""

import pytest

from course_helpers.labs.order import RUN_ORDER, LabError, find_labs, select_labs


@pytest.fixture
def folder(tmp_path):
    for name in ("M9-LAB-02-b", "M9-CODE-01-c", "M9-LAB-01-a", "M9-LAB-APP-A-d"):
        (tmp_path / f"{name}.py").touch()
    return tmp_path


def test_labs_come_in_run_order_and_missing_ones_are_left_out(folder):
    assert [lab.id for lab in find_labs(folder)] == ["M9-LAB-01", "M9-LAB-APP-A", "M9-CODE-01", "M9-LAB-02"]


def test_run_order_names_every_lab_of_the_module_once():
    numbered = {f"M9-LAB-0{number}" for number in range(1, 10)}
    others = {"M9-LAB-APP-A", "M9-LAB-APP-B", "M9-LAB-APP-C", "M9-CODE-01", "M9-CODE-02"}
    assert set(RUN_ORDER) == numbered | others and len(RUN_ORDER) == 14


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("M9-LAB-10-x.py", "known lab id"),
        ("M9-LAB-011.py", "known lab id"),
        ("helpers.py", "known lab id"),
        ("M9-LAB-01-other.py", "already belongs to"),
        ("M9-LAB-03-alone.ipynb", "there is no M9-LAB-03-alone.py beside it"),
    ],
)
def test_a_file_that_belongs_to_no_lab_is_refused(folder, name, message):
    (folder / name).touch()
    with pytest.raises(LabError, match=message):
        find_labs(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(LabError, match="--notebooks"):
        find_labs(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ["M9-LAB-01", "M9-LAB-APP-A", "M9-CODE-01", "M9-LAB-02"]),
        (["M9-LAB-02", "M9-LAB-01"], ["M9-LAB-01", "M9-LAB-02"]),
        (["m9-code"], ["M9-CODE-01"]),
        (["notebooks/M9-LAB-02-b.ipynb"], ["M9-LAB-02"]),
        (["M9-LAB-APP"], ["M9-LAB-APP-A"]),
    ],
)
def test_labs_are_named_by_id_path_or_prefix(folder, names, expected):
    assert [lab.id for lab in select_labs(find_labs(folder), names)] == expected


@pytest.mark.parametrize(("name", "message"), [("M9-LAB-0", "more than one"), ("M9-LAB-09", "is no lab")])
def test_an_ambiguous_or_unknown_name_lists_the_choices(folder, name, message):
    with pytest.raises(LabError, match=message) as caught:
        select_labs(find_labs(folder), [name])
    assert "M9-LAB-01, " in str(caught.value) and "M9-LAB-02" in str(caught.value)
