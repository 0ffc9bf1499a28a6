"""One line of the doctor's report."""

from dataclasses import dataclass

OK, WARNING, FAILED = "ok", "warning", "failed"
MARKS = {OK: "[ok]  ", WARNING: "[note]", FAILED: "[FAIL]"}


@dataclass(frozen=True)
class Line:
    """What was looked at, how it stands, what was found, and what to do about it where it is not well."""

    section: str
    what: str
    state: str
    found: str
    next_step: str = ""


def line(section: str, what: str, found: str, amiss: bool = False, next_step: str = "", state: str = WARNING) -> Line:
    """A line that is ok, or, where something is `amiss`, has that `state` and says what to do."""
    return Line(section, what, state if amiss else OK, found, next_step if amiss else "")
