"""M9-LAB-APP-B: its exercise checks diagnose, its steps are those of the course, its figures tell what they show."""

import json
import math
import os
import shutil

import pytest

from course_helpers.labs import ExerciseHint
from course_helpers.labs.lab_app_b import STEPS, last_run, last_run_table, run_fresh
from course_helpers.labs.lab_app_b_exercises import LIMITS, check_no_go, check_run_order, report
from course_helpers.labs.lab_app_b_figures import families, labs_in_short, run_log, run_order
from course_helpers.labs.lab_app_b_rollback import NEW, OLD, Disk, check_put_into_service, contents, watched
from course_helpers.labs.order import RUN_ORDER
from course_helpers.validation import LAYERS


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


# Exercise 1


def gate(report, limits):
    passed = {check.name for check in report.checks if check.ok}
    for layer in LAYERS:
        if layer not in passed:
            return layer
    for name, (low, high) in limits.items():
        if not low <= report.telemetry.get(name, math.nan) <= high:
            return name
    return ""


def reached_only(report, limits):
    failed = [check.name for check in report.checks if not check.ok]
    return failed[0] if failed else gate(report_of_all(report), limits)


def report_of_all(found):
    return report(**dict.fromkeys(("loss_per_token", "tokens_per_second")) | found.telemetry)


def after_the_last(found, limits):
    """The layer after the last one reached, and not the one that failed."""
    names = list(LAYERS)
    return gate(found, limits) if len(found.checks) == 5 else names[len(found.checks)]


def limits_first(found, limits):
    return gate(report_of_all(found), limits) or gate(found, {})


def with_rule(broken):
    """A gate that judges a measurement by another rule: broken(value, low, high)."""

    def no_go(found, limits):
        if layer := gate(found, {}):
            return layer
        for name, bounds in limits.items():
            if broken(found.telemetry.get(name), *bounds):
                return name
        return ""

    return no_go


def missing_is_fine(found, limits):
    return gate(found, {name: bounds for name, bounds in limits.items() if name in found.telemetry})


def telemetry_order(found, limits):
    return gate(found, {name: limits[name] for name in sorted(limits)})


@pytest.mark.parametrize(
    ("no_go", "advice"),
    [
        (empty, "still empty"),
        (silent, "return statement"),
        (lambda found, limits: gate(found, limits) == "", "return a name"),
        (lambda found, limits: gate(found, limits) or "go", "expected '', got 'go'"),
        (reached_only, "interrupted after three layers.*no check has failed"),
        (after_the_last, "expected 'generation', got 'baseline'.*the last that was reached"),
        (lambda found, limits: gate(found, {}), "the limits count"),
        (with_rule(lambda value, low, high: value is None or value > high), "`low` is a limit"),
        (with_rule(lambda value, low, high: value is None or not low < value < high), "ends are included"),
        (with_rule(lambda value, low, high: value is None or not low <= value < high), "ends are included"),
        (with_rule(lambda value, low, high: value is None or value < low or value > high), "NaN is false"),
        (missing_is_fine, "What was not measured"),
        (limits_first, "Layers come first"),
        (telemetry_order, "order of `limits`"),
    ],
)
def test_a_wrong_gate_gets_the_hint_that_helps(no_go, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check_no_go(no_go)


def test_reports_that_nothing_was_reached_in_are_seen():
    def all_of_what_was_reached(found, limits):
        if not found.checks:
            return ""
        return gate(found, limits)

    with pytest.raises(ExerciseHint, match=r"all\(\[\]\) is True"):
        check_no_go(all_of_what_was_reached)


def test_the_reports_are_real_ones():
    assert report().ok and report().failed is None
    assert report("shapes", 2).failed == "shapes" and not report("shapes", 2).ok
    assert not report(reached=3).ok and report(reached=3).failed is None  # the case that misleads
    assert set(LIMITS) <= set(report().telemetry)


# Exercise 2


def ordered(needs):
    done = []
    while len(done) < len(needs):
        ready = [step for step, before in needs.items() if step not in done and set(before) <= set(done)]
        if not ready:
            raise ValueError("no order")
        done += ready
    return done


def one_pass(needs):
    done = []
    for step, before in needs.items():
        if set(before) <= set(done):
            done.append(step)
    return done


def depth_first(needs):
    done = []

    def visit(step):
        for before in needs[step]:
            visit(before)
        done.append(step)

    for step in needs:
        visit(step)
    return done


def depth_first_once(needs):
    done = []

    def visit(step):
        if step not in done:
            for before in needs[step]:
                visit(before)
            done.append(step)

    for step in needs:
        visit(step)
    return done


def eats_its_input(needs):
    done = []
    while needs:
        ready = [step for step, before in needs.items() if not before]
        if not ready:
            raise ValueError("no order")
        for step in ready:
            del needs[step]
            done.append(step)
            for before in needs.values():
                if step in before:
                    before.remove(step)
    return done


def drops_what_waits(needs):
    done, found = [], True
    while found:
        found = [step for step, before in needs.items() if step not in done and set(before) <= set(done)]
        done += found
    return done


def with_unknown(needs):
    return list(dict.fromkeys([*ordered(needs), "coffee"]))


@pytest.mark.parametrize(
    ("order", "advice"),
    [
        (empty, "still empty"),
        (silent, "return statement"),
        (lambda needs: " ".join(ordered(needs)), "expected a list"),
        (lambda needs: list(needs), "'sources' comes before .*'pre-flight'.*which it needs"),
        (lambda needs: sorted(needs, key=lambda step: len(needs[step])), "number.* of needs does not do"),
        (one_pass, "is not in your order"),
        (depth_first, "there twice"),
        (eats_its_input, "changed `needs`"),
        (with_unknown, "no step of this project"),
        (drops_what_waits, "there is no order, and yet you return"),
        (depth_first_once, "ends in a RecursionError|there is no order"),
    ],
)
def test_a_wrong_order_gets_the_hint_that_helps(order, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check_run_order(order)


def test_a_step_that_does_not_exist_must_be_foreseen():
    def looks_up(needs):
        for before in needs.values():
            for other in before:
                needs[other]
        return ordered(needs)

    with pytest.raises(ExerciseHint, match="ends in a KeyError"):
        check_run_order(looks_up)


# Exercise 3


def in_service(home, name, write, passes):
    draft, pointer = home / f".{name}.draft", home / ".CURRENT.draft"
    try:
        write(draft)
        if not passes(draft):
            return False
        draft.rename(home / name)
        pointer.write_text(name)
        os.replace(pointer, home / "CURRENT")
        return True
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        pointer.unlink(missing_ok=True)


def writes_in_place(home, name, write, passes):
    write(home / name)
    if not passes(home / name):
        shutil.rmtree(home / name)
        return False
    return point(home, name)


def point(home, name):
    (home / ".next").write_text(name)
    os.replace(home / ".next", home / "CURRENT")
    return True


def publishes_first(home, name, write, passes):
    point(home, name)
    write(home / "draft")
    (home / "draft").rename(home / name)
    return passes(home / name)


def never_tests(home, name, write, passes):
    draft = home / ".draft"
    try:
        write(draft)
        draft.rename(home / name)
        return point(home, name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def leaves_the_draft(home, name, write, passes):
    write(home / ".draft")
    if not passes(home / ".draft"):
        return False
    (home / ".draft").rename(home / name)
    return point(home, name)


def tidies_only_errors(home, name, write, passes):
    try:
        write(home / ".draft")
    except BaseException:
        shutil.rmtree(home / ".draft")
        raise
    if not passes(home / ".draft"):
        return False
    (home / ".draft").rename(home / name)
    return point(home, name)


def with_ending(end):
    """A right way to write and test, and then this ending: end(home, name, draft)."""

    def put(home, name, write, passes):
        draft = home / ".draft"
        try:
            write(draft)
            return end(home, name, draft) if passes(draft) else False
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    return put


def overwrites(home, name, draft):
    draft.rename(home / name)
    (home / "CURRENT").write_text(name)
    return True


def deletes_first(home, name, draft):
    draft.rename(home / name)
    (home / "CURRENT").unlink()
    (home / "CURRENT").write_text(name)
    return True


def copies(home, name, draft):
    shutil.copytree(draft, home / name)
    return point(home, name)


def whole_path(home, name, draft):
    draft.rename(home / name)
    return point(home, str(home / name))


def throws_the_old_away(home, name, draft):
    draft.rename(home / name)
    point(home, name)
    shutil.rmtree(home / OLD)
    return True


def forgets_to_point(home, name, draft):
    draft.rename(home / name)
    return True


def leaves_a_note(home, name, draft):
    draft.rename(home / name)
    (home / "done.txt").write_text("done")
    return point(home, name)


def says_nothing(home, name, draft):
    draft.rename(home / name)
    point(home, name)


def points_before_renaming(home, name, draft):
    point(home, name)
    draft.rename(home / name)
    return True


def swallows(home, name, write, passes):
    try:
        return in_service(home, name, write, passes)
    except Exception:
        return False


def makes_the_folder(home, name, write, passes):
    (home / ".draft").mkdir()
    write(home / ".draft")


@pytest.mark.parametrize(
    ("put", "advice"),
    [
        (empty, "still empty"),
        (silent, "nothing was written"),
        (writes_in_place, "while the model is written: there is a folder v2 that is not whole"),
        (publishes_first, "CURRENT names v2, and v2 is not whole"),
        (never_tests, "without a test"),
        (leaves_the_draft, "writing failed, and .*draft.* was left behind"),
        (tidies_only_errors, "there was no go, and .*draft.* was left behind"),
        (swallows, "the caller was not told"),
        (makes_the_folder, "makes the folder itself"),
        (with_ending(overwrites), "CURRENT was written over"),
        (with_ending(deletes_first), "CURRENT is not there"),
        (with_ending(copies), "a copy is made file by file"),
        (with_ending(whole_path), "the bare name"),
        (with_ending(throws_the_old_away), "v1 is damaged or gone"),
        (with_ending(forgets_to_point), "still names v1"),
        (with_ending(leaves_a_note), "done.txt.* was left behind"),
        (with_ending(says_nothing), "return statement"),
        (with_ending(points_before_renaming), "CURRENT names v2, and v2 is not whole"),
        (lambda *given: in_service(*given) or 0, "so return False"),
        (lambda *given: in_service(*given) and 1, "so return True"),
        (lambda home, name, write, passes: in_service(home, name, write, lambda folder: passes(home)), "not written"),
    ],
)
def test_a_wrong_roll_back_gets_the_hint_that_helps(put, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check_put_into_service(put)


@pytest.mark.parametrize(
    ("check", "right"),
    [(check_no_go, gate), (check_run_order, ordered), (check_put_into_service, in_service)],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


def test_the_disk_is_looked_at_between_the_lines(tmp_path):
    disk = Disk(tmp_path)
    assert disk.problem() == "" and disk.whole(OLD) and not disk.whole(NEW)

    def breaks_and_mends(home):
        (home / OLD / "config.json").unlink()
        (home / OLD / "config.json").write_bytes(contents(OLD)["config.json"])

    watched(breaks_and_mends, disk, tmp_path)
    assert disk.problem() == "" and "before line 3 of your function: CURRENT names v1" in disk.wrong
    assert disk.moments == 3  # before two lines, and at the end


# What the notebook stands on


def test_the_steps_are_those_of_the_course():
    assert {lab for step in STEPS for lab in step.labs} == set(RUN_ORDER) - {"M9-LAB-APP-B"}
    # Within a step, labs stand in run order; and sources, conversion, families, bridge come one after the other.
    assert all(sorted(step.labs, key=RUN_ORDER.index) == list(step.labs) for step in STEPS)
    named = {step.title.split()[1]: min(map(RUN_ORDER.index, step.labs)) for step in STEPS}
    assert named["sources"] < named["conversion"] < named["families"] < named["bridge"] < named["hand-off"]
    assert [step.title.split()[0] for step in STEPS] == list("01234567")


def test_labs_are_named_in_short():
    assert labs_in_short(("M9-LAB-06",)) == "M9-LAB-06"
    assert labs_in_short(("M9-LAB-02", "M9-LAB-03")) == "M9-LAB-02, 03"
    assert labs_in_short(("M9-LAB-04", "M9-LAB-05", "M9-CODE-02")) == "M9-LAB-04, 05,\nCODE-02"


def test_the_map_names_every_gate_and_its_labs():
    image = run_order()
    assert image.data.startswith(b"\x89PNG")
    assert all(step.question in image.alt and lab in image.alt for step in STEPS for lab in step.labs)


def test_the_picture_of_the_families_says_both_figures():
    table = {
        "tiny-gpt2": {"bits": 0.09, "tokens_per_second": 210.4},
        "tiny-olmo3": {"bits": 0.1, "tokens_per_second": 99.0},
    }
    image = families(table)
    assert image.data.startswith(b"\x89PNG") and "tiny-gpt2 90 and 210; tiny-olmo3 100 and 99" in image.alt


def test_the_picture_of_a_log_says_what_passed():
    steps = [
        {"title": "0 pre-flight", "checks": {"a": True, "b": True}, "go": True, "began": 5.0, "seconds": 2.0},
        {"title": "1 sources", "checks": {"c": True, "d": False}, "go": False, "began": 7.0, "seconds": 0.5},
    ]
    image = run_log(steps)
    assert image.data.startswith(b"\x89PNG")
    assert "0 pre-flight go, 2 of 2 checks, 2.0 seconds; 1 sources NO-GO, 1 of 2 checks" in image.alt


def test_the_last_run_is_told_lab_by_lab(tmp_path):
    path = tmp_path / "run.json"
    assert last_run(path) == [] and "make run" in last_run_table(path)
    labs = [
        {"lab": "M9-LAB-01", "ok": True, "seconds": 12.4, "checkpoints": [{"passed": True}, {"passed": True}]},
        {"lab": "M9-LAB-03", "ok": False, "seconds": 3.0, "checkpoints": [{"passed": True}, {"passed": False}]},
    ]
    path.write_text(json.dumps({"labs": labs}))
    rows = {row.lab: row for row in last_run(path)}
    assert list(rows) == list(RUN_ORDER)
    lines = last_run_table(path).splitlines()
    assert lines[1].split() == ["M9-LAB-01", "passed", "2", "of", "2", "12"]
    assert lines[2].split() == ["M9-LAB-03", "FAILED", "1", "of", "2", "3"]
    not_run = [lab for lab in RUN_ORDER if lab not in ("M9-LAB-01", "M9-LAB-03")]
    assert " ".join(" ".join(lines[3:]).split()) == "not run: " + ", ".join(not_run)


def test_a_fresh_process_answers_or_says_why_not(tmp_path):
    with pytest.raises(RuntimeError, match=r"missing\.json"):
        run_fresh("verify", tmp_path / "missing.json")
