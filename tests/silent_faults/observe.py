"""Which layer of the validation stack notices a fault. Nothing is assumed; all of it is tried."""

import functools
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from pytest import MonkeyPatch

from course_helpers import FAMILIES, CheckpointError, CourseWarning
from course_helpers.validation import LAYERS, run
from course_helpers.validation_layers import baseline, files
from course_helpers.validation_layers.subject import Subject
from tests.bundled import FOLDERS
from tests.silent_faults import FAULTS
from tests.silent_faults.fault import Patient

NOBODY = "nobody"


@dataclass(frozen=True)
class Observed:
    """The layer that fails, what it says, and whether that needs a card."""

    layer: str
    says: str
    without_card: bool  # whether it, or a layer before it, fails on a checkpoint that has no card, too
    by_hash: bool  # whether the hashes of a card show it


@functools.cache
def observe(name: str, family: str) -> Observed:
    """Put a fault into a family's bundled checkpoint and run the layers."""
    fault = FAULTS[name]
    with tempfile.TemporaryDirectory() as place, MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", CourseWarning)  # some faults are warned of, too
        patient = Patient(family, Path(place), patch)
        fault.put_in(patient)
        by_hash = not fault.in_code and listed(patient)
        subject = Subject(patient.folder)
        for layer, check in LAYERS.items():
            outcome = run(layer, check, subject)
            if not outcome.ok:
                return Observed(layer, outcome.detail, layer != "baseline" or card_free(subject), by_hash)
        return Observed(NOBODY, "", False, by_hash)


def card_free(subject: Subject) -> bool:
    """Whether the last layer fails without a card as well."""
    subject.card = {}
    return not run("baseline", baseline.check, subject).ok


def listed(patient: Patient) -> bool:
    """Whether the first layer fails where the card lists hashes."""
    full = FOLDERS[FAMILIES[patient.family].tiny] / "card.json"
    short = (patient.folder / "card.json").read_bytes()
    shutil.copyfile(full, patient.folder / "card.json")
    try:
        files.check(Subject(patient.folder))
    except CheckpointError:
        return True
    finally:
        (patient.folder / "card.json").write_bytes(short)
    return False
