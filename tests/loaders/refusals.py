"""What every refusal of a checkpoint must do: say everything, and change nothing."""

import pytest
import torch
from torch import nn

from course_helpers import CheckpointError, load_model, load_weights
from tests.tiny_models import Data


def refusal(
    source: object, config: Data | None = None, kind: type[CheckpointError] = CheckpointError
) -> CheckpointError:
    """The error that load_model raises for a source; checked to answer every question."""
    errors = []
    for strategy in ("mmap", "stream"):  # the two ways to get at a file's bytes
        with pytest.raises(kind) as caught:
            load_model(source, config=config, strategy=strategy)
        errors.append(caught.value)
    assert len({str(error) for error in errors}) == 1
    check_answers(errors[0])
    return errors[0]


def refusal_in_hand(model: nn.Module, source: object) -> CheckpointError:
    """The error that load_weights raises for a source; the model in hand is checked to be as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, source)
    assert_untouched(model, before)
    check_answers(caught.value)
    return caught.value


def assert_untouched(model: nn.Module, before: dict[str, torch.Tensor]) -> None:
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def check_answers(error: CheckpointError) -> None:
    answers = (error.what, error.file, error.expected, error.found, error.cause, error.next_step)
    assert all(answer is not None and str(answer) for answer in answers), vars(error)
    printed = str(error)
    assert all(str(answer) in printed for answer in (*answers, error.tensor or "", error.field or ""))
    assert error.problems[0] is error
