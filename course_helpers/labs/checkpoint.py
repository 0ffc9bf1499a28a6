"""What a lab calls to say that a result holds, and to help a learner whose answer does not hold yet."""

from __future__ import annotations

import sys

from course_helpers.labs.progress import remember

CHECKPOINT_MIME_TYPE = "application/vnd.course.checkpoint+json"


class ExerciseHint(AssertionError):
    """An exercise is not solved yet; the message is the hint."""

    def _render_traceback_(self) -> list[str]:
        # IPython prints this instead of a traceback: the learner needs the hint, not our stack.
        return [f"Not yet: {self}"]


def hint(wrong: bool, message: str) -> None:
    """Stop with ``message`` where ``wrong`` holds; a check function is a list of such lines.

    >>> def check_cache_bytes(answer):
    ...     hint(answer == 0, "no bytes: did you multiply by the number of layers?")
    ...     hint(answer % 2, "an odd number of bytes: keys and values are two tensors of the same size")
    """
    if wrong:
        raise ExerciseHint(message)


def validation_checkpoint(lab: str, name: str, passed: bool, detail: str = "") -> None:
    """Show in one line whether a lab's result holds, and raise AssertionError with ``detail`` if it does not.

    The line depends on nothing but the arguments, so that a notebook's stored output can be compared exactly.
    The same facts go along in machine-readable form, which ``python -m course_helpers.labs run`` collects.
    In a notebook, a checkpoint that has passed is remembered: ``python -m course_helpers progress``.
    """
    passed = bool(passed)
    outcome = "passed" if passed else "FAILED"
    record = {"lab": lab, "checkpoint": name, "passed": passed, "detail": "" if passed else detail}
    _show(f"VALIDATION CHECKPOINT {lab} | {name} | {outcome}", record)
    if passed and _in_a_notebook():
        remember(lab, name)
    if not passed:
        raise AssertionError(f"{lab}: validation checkpoint '{name}' failed. {detail}".rstrip())


def _in_a_notebook() -> bool:
    # Where nobody has imported IPython there is no notebook to display in, and no reason to load it.
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _show(line: str, record: dict[str, object]) -> None:
    if not _in_a_notebook():
        print(line)
        return
    from IPython.display import display

    display({"text/plain": line, CHECKPOINT_MIME_TYPE: record}, raw=True)
