"""The one error that every refused checkpoint raises, that of processes which lost each other, and the one warning."""

from collections.abc import Iterable


class CourseWarning(UserWarning):
    """Something that works, but that the reader should know about (a documented default was assumed, for instance)."""


class CheckpointError(ValueError):
    """A checkpoint, config or tokenizer that must not be used as it is.

    The message always answers the same questions, in the same order: what is wrong, in which file, in which tensor
    or field, what was expected, what was found, what the likely cause is, and what to do next. Each answer is also
    an attribute, so that programs need not parse the text. `problems` lists every problem found, this one first.
    """

    def __init__(
        self,
        what: str,
        *,
        file: object = None,
        tensor: str | None = None,
        field: str | None = None,
        expected: object = None,
        found: object = None,
        cause: str | None = None,
        next_step: str | None = None,
    ):
        self.what, self.file, self.tensor, self.field = what, file, tensor, field
        self.expected, self.found, self.cause, self.next_step = expected, found, cause, next_step
        self.problems: tuple[CheckpointError, ...] = (self,)
        super().__init__(what)

    def __str__(self) -> str:
        answers = {
            "file": self.file,
            "tensor": self.tensor,
            "field": self.field,
            "expected": self.expected,
            "found": self.found,
            "likely cause": self.cause,
            "next step": self.next_step,
        }
        lines = [self.what, *(f"  {name:<13}{value}" for name, value in answers.items() if value is not None)]
        others = self.problems[1:]
        if others:
            lines.append(f"  and {len(others)} more problem{'s' if len(others) > 1 else ''}:")
            lines += [f"    - {other.summary()}" for other in others[:8]]
            lines += [f"    - ... {len(others) - 8} more"] if len(others) > 8 else []
        # What a damaged file holds may not be text that can be printed: half of a pair of surrogates, for instance.
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")

    def summary(self) -> str:
        """The problem in one line."""
        place = self.tensor or self.field or ""
        detail = f" (expected {self.expected}, found {self.found})" if self.expected is not None else ""
        return f"{place}: {self.what}{detail}" if place else f"{self.what}{detail}"


class UnsafeFileError(CheckpointError):
    """A file that would run code when it is opened. It was not opened."""


class ConfigError(CheckpointError):
    """A config.json whose values this package does not support, or that lacks one it needs."""


class RankError(RuntimeError):
    """The processes that share a model are not together: one ended, hangs, never came, or was told to stop."""

    def __init__(self, what: str, *, found: object, cause: str, next_step: str):
        answers = {"found": found, "likely cause": cause, "next step": next_step}
        super().__init__("\n".join([what, *(f"  {name:<13}{value}" for name, value in answers.items())]))


def raise_all(problems: Iterable[CheckpointError]) -> None:
    """Raise the first problem with all the others attached; do nothing when there is none."""
    problems = tuple(problems)
    if problems:
        problems[0].problems = problems
        raise problems[0]
