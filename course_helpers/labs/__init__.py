"""Build, run, check and copy the labs, and what a lab itself needs to report what it found.

In a lab::

    from course_helpers.labs import hint, record_results, validation_checkpoint

On the command line::

    python -m course_helpers.labs build | run | check | copies | runbook [LAB ...]

Importing this package loads the standard library only; the commands load jupytext, nbclient and nbformat.
"""

from course_helpers.labs.checkpoint import ExerciseHint, hint, validation_checkpoint
from course_helpers.labs.records import record_results

__all__ = ["ExerciseHint", "hint", "record_results", "validation_checkpoint"]
