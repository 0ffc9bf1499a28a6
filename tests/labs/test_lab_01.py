"""The exercise checks of M9-LAB-01: right answers pass, and each typical mistake gets the hint that names it."""

import json

import pytest
import torch

from course_helpers.architectures.gpt2 import GPT2Model
from course_helpers.families import FAMILIES
from course_helpers.labs import ExerciseHint
from course_helpers.labs.lab_01 import (
    check_load_all_or_nothing,
    check_read_tensor,
    check_split_c_attn,
    check_to_hugging_face,
)


def reader(offset=lambda length: 8 + length, end=lambda first, last: last, dtype=torch.float32, shaped=True):
    """A read_tensor that is right, or wrong in one respect."""

    def read_tensor(path, name):
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        row = json.loads(content[8 : 8 + length])[name]
        first, last = row["data_offsets"]
        raw = content[offset(length) + first : offset(length) + end(first, last)]
        tensor = torch.frombuffer(bytearray(raw), dtype=dtype)
        return tensor.view(row["shape"]) if shaped else tensor

    return read_tensor


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


def load(model, tensors, *, names=True, shapes=True, stage=True, turn=True):
    """A load_all_or_nothing that is right, or leaves one of its duties out."""
    parameters = dict(model.named_parameters())
    rules = FAMILIES["gpt2"].weight_maps[0].expand(model.config)
    del rules["lm_head.weight"]
    if names and rules.keys() != tensors.keys():
        raise ValueError("names")
    staged = []
    for name, rule in rules.items():
        if name not in tensors:
            continue
        wanted = [parameters[target].shape for target in rule.targets]
        if shapes and tuple(tensors[name].shape) != tuple(rule.source_shape(wanted)):
            raise ValueError("shape")
        parts = rule.to_ours(tensors[name], wanted)
        if not turn and "attn.c_proj.weight" in name:
            parts = [tensors[name]]
        staged += zip(rule.targets, parts, strict=True)
        if not stage:
            with torch.no_grad():
                for target, part in zip(rule.targets, parts, strict=True):
                    parameters[target].copy_(part)
    with torch.no_grad():
        for target, part in staged:
            parameters[target].copy_(part)


def renamer(*, embeddings=True, layer=True, gain=True, squeeze=True, turn=False):
    """A to_hugging_face that is right, or wrong in one respect."""

    def to_hugging_face(name, tensor):
        _, *parts = name.split("/")
        if layer and parts[0].startswith("h"):
            parts[:1] = ["h", parts[0][1:]]
        if embeddings and parts[-1] in ("wte", "wpe"):
            parts.append("w")
        ends = {"b": "bias", "w": "weight"} | ({"g": "weight"} if gain else {})
        parts[-1] = ends.get(parts[-1], parts[-1])
        matrix = tensor.squeeze(0) if squeeze else tensor
        return ".".join(parts), matrix.T if turn and tensor.dim() == 3 else matrix

    return to_hugging_face


def loader(**left_out):
    return lambda model, tensors: load(model, tensors, **left_out)


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (check_read_tensor, reader()),
        (check_split_c_attn, lambda weight: weight.T.chunk(3)),
        (check_split_c_attn, lambda weight: tuple(part.T for part in weight.chunk(3, dim=1))),
        (check_load_all_or_nothing, loader()),
        (check_to_hugging_face, renamer()),
    ],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "wrong", "advice"),
    [
        (check_read_tensor, empty, "still empty"),
        (check_read_tensor, silent, "return statement"),
        (check_read_tensor, lambda path, name: [1.0], "expected a tensor"),
        (check_read_tensor, reader(shaped=False), "use the header's 'shape'"),
        (check_read_tensor, reader(dtype=torch.int32), "the bytes are float32"),
        (check_read_tensor, reader(end=lambda first, last: first + 8, shaped=False), "first byte and last byte"),
        (check_read_tensor, reader(offset=lambda length: length), "add 8 bytes for the length"),
        (check_split_c_attn, empty, "still empty"),
        (check_split_c_attn, lambda weight: weight.chunk(3), "along the output side"),
        (check_split_c_attn, lambda weight: weight.chunk(3, dim=1), "but for the transpose"),
        (check_split_c_attn, lambda weight: weight.T.chunk(3)[::-1], "the order is query, key, value"),
        (check_split_c_attn, lambda weight: weight.T.chunk(5), "expected three matrices, got 5"),
        (check_split_c_attn, lambda weight: [part + 1 for part in weight.T.chunk(3)], "wrong numbers"),
        (check_load_all_or_nothing, empty, "still empty"),
        (check_load_all_or_nothing, silent, "is not what the file holds"),
        (check_load_all_or_nothing, loader(turn=False), "attention.output.weight is not what the file holds"),
        (check_load_all_or_nothing, loader(names=False), "loaded without a word"),
        (check_load_all_or_nothing, loader(shapes=False), "raise your own ValueError"),
        (check_load_all_or_nothing, loader(stage=False), "Check everything first"),
        (check_to_hugging_face, empty, "still empty"),
        (check_to_hugging_face, silent, "return statement"),
        (check_to_hugging_face, lambda name, tensor: name, "return two things"),
        (check_to_hugging_face, lambda name, tensor: (tensor, name), "should be a tensor"),
        (check_to_hugging_face, renamer(embeddings=False), "the two embeddings have no ending"),
        (check_to_hugging_face, renamer(layer=False), "'h3' becomes 'h.3'"),
        (check_to_hugging_face, renamer(gain=False), "the gain of a norm"),
        (check_to_hugging_face, renamer(squeeze=False), "dimension of 1 is still there"),
        (check_to_hugging_face, renamer(turn=True), "do not turn it"),
        (check_to_hugging_face, lambda *pair: (renamer()(*pair)[0], pair[1].squeeze(0) + 1), "the numbers changed"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(check, wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check(wrong)


def test_the_model_of_exercise_3_shows_every_mistake():
    """All its parameters are different from tensor to tensor, so none can be exchanged unseen."""
    from course_helpers.labs.lab_01 import SMALL, fresh_model

    values = [parameter.detach() for parameter in fresh_model(1).parameters()]
    assert len(values) == len(list(GPT2Model(SMALL).parameters()))
    assert all(value.unique().numel() == value.numel() for value in values)
