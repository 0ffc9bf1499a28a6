"""What two models of one checkpoint hold and compute at corresponding places.

Which module of ours corresponds to which of theirs is not written down a second time: the weight map pairs the
parameters, so it pairs the modules that own them, and the parts of a block that contain those. Only rotary positions,
which have no parameters, are paired here.

Shape suffixes: B batch, T tokens, C features of any kind, N = B x T, X experts, k experts per token.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ..architectures.config import FULL, SLIDING
from ..loaders.rules import Rule


@dataclass(frozen=True)
class Point:
    """One thing that both models have: a parameter, or what a module was given or returned."""

    ours: str
    theirs: str
    what: str  # "weight", "input", "output", "cos", ...
    our_value: Tensor | None  # None: the module was not called
    their_value: Tensor | None
    our_input: Tensor | None = None  # what the module was given
    their_input: Tensor | None = None

    @property
    def place(self) -> str:
        """Our name without the number of the layer, and what of it: "blocks.*.attention.output input"."""
        parts = ["*" if part.isdecimal() else part for part in self.ours.split(".")]
        return f"{'.'.join(parts)} {self.what}"


@dataclass(frozen=True)
class Pair:
    """A module of ours and the module of theirs that does the same."""

    ours: str
    theirs: str
    #: Which of their features are meant, from and to: GPT-2 computes query, key and value in one go.
    columns: tuple[int | None, int | None] = (None, None)
    layer_type: str | None = None  # which of several calls is meant: one module computes all of their rotary tables


@dataclass
class Call:
    """One call of a module, and when it began and ended, in steps of the pass."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    began: int
    ended: int = 0
    output: Any = None

    @property
    def layer_type(self) -> str | None:
        return next((value for value in (*self.args, *self.kwargs.values()) if isinstance(value, str)), None)

    @property
    def given(self) -> Tensor | None:
        return next((value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Tensor)), None)


Calls = Mapping[str, list[Call]]


def weight_points(steps: Mapping[str, Rule], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[Point]:
    """Every parameter beside the tensor of theirs that it comes from, turned and cut as ours is."""
    points = []
    for source, rule in steps.items():
        parameters = [ours[target] for target in rule.targets]
        values = rule.to_ours(theirs[source], [parameter.shape for parameter in parameters])
        for target, parameter, value in zip(rule.targets, parameters, values, strict=True):
            points.append(Point(target, source, "weight", rule.region(parameter), value))
    return points


def module_pairs(steps: Mapping[str, Rule], ours: Mapping[str, Tensor], theirs: nn.Module) -> list[Pair]:
    """Corresponding modules, each pair once; the models themselves are the first pair."""
    pairs = [Pair("", ""), *rotary_pairs(theirs)]
    for source, rule in steps.items():
        start = 0
        for target in rule.targets:
            columns = (start, start := start + len(ours[target])) if rule.targets[1:] else (None, None)
            pairs.append(Pair(parent(target), parent(source), columns))
    for pair in list(pairs):
        inside, theirs_name = parent(pair.ours), parent(pair.theirs)
        while inside.startswith("blocks."):
            pairs.append(Pair(inside, theirs_name))
            inside, theirs_name = parent(inside), parent(theirs_name)
    return list({(pair.ours, pair.layer_type): pair for pair in pairs}.values())


def rotary_pairs(theirs: nn.Module) -> Iterator[Pair]:
    for name, _ in theirs.named_modules():
        if name.startswith("rotary_embeddings."):  # another model of ours
            yield Pair(name, name)
        if name.endswith("rotary_emb"):
            for layer_type in (FULL, SLIDING):
                yield Pair(f"rotary_embeddings.{layer_type}", name, layer_type=layer_type)


def parent(name: str) -> str:
    """The module that owns a parameter or contains a module."""
    return name.rpartition(".")[0]


def record(model: nn.Module, names: Iterable[str], ids_BT: Tensor, **options: Any) -> Calls:
    """The calls of the named modules in one pass, in eval mode. The model is left as it was, whatever happens."""
    modules = dict(model.named_modules())
    training = {name: module.training for name, module in modules.items()}
    calls: dict[str, list[Call]] = {}
    step = itertools.count()

    def begin(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.setdefault(name, []).append(Call(module, args, kwargs, next(step)))

    def end(name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls[name][-1].ended, calls[name][-1].output = next(step), output

    with contextlib.ExitStack() as hooks:
        for name in modules.keys() & set(names):
            before, after = (lambda *given, hook=hook, name=name: hook(name, *given) for hook in (begin, end))
            hooks.enter_context(modules[name].register_forward_pre_hook(before, with_kwargs=True))
            hooks.enter_context(modules[name].register_forward_hook(after))
        try:
            model.eval()(ids_BT, **options)
        finally:
            for name, was_training in training.items():
                modules[name].training = was_training
    return calls


Tap = Callable[[Call, Calls, str], Tensor]  # reads a value off a call; the other calls and the module's name are there


def given(call: Call, calls: Calls, name: str) -> Tensor:
    return call.given


def returned(call: Call, calls: Calls, name: str) -> Tensor:
    return call.output if isinstance(call.output, Tensor) else call.output[0]


def returned_second(call: Call, calls: Calls, name: str) -> Tensor:
    return call.output[1]


def mixing_weights(call: Call, calls: Calls, name: str) -> Tensor:
    """How much each expert counts for each token, (N, X); 0 for those that were not chosen."""
    if isinstance(call.output, tuple):  # transformers' router chooses
        logits_NX, weight_Nk, chosen_Nk = call.output
    else:  # ours scores, and what is around it chooses
        around = calls[parent(name)][0]
        logits_NX, (chosen_Nk, weight_Nk) = call.output, around.module.route(around.given.flatten(0, 1))
    return torch.zeros_like(logits_NX).scatter(-1, chosen_Nk, weight_Nk)


def chosen_experts(call: Call, calls: Calls, name: str) -> Tensor:
    return (mixing_weights(call, calls, name) != 0).to(torch.float32)


THROUGH: dict[str, Tap] = {"input": given, "output": returned}
#: Pattern of our modules -> what is looked at. The first that fits holds.
TAPS: tuple[tuple[str, dict[str, Tap]], ...] = (
    ("", {"logits": returned}),
    ("token_embedding", {}),  # seen where the first block is given it: Gemma's scale is a part of it
    ("output_head", {}),  # seen in the logits: a tied head is no module
    ("rotary_embeddings.*", {"cos": returned, "sin": returned_second}),
    ("blocks.0", THROUGH),
    ("blocks.*.attention.output", THROUGH),  # its input: the values, mixed, before they are projected
    ("blocks.*.feed_forward.down", THROUGH),  # its input: after the activation
    ("blocks.*.feed_forward.router", {"output": returned, "chosen": chosen_experts, "weights": mixing_weights}),
    ("blocks.*.feed_forward.experts", {}),  # ours and theirs get their rows in different orders
    ("*", {"output": returned}),
)


def module_points(pairs: Iterable[Pair], our_calls: Calls, their_calls: Calls) -> list[Point]:
    """What corresponding modules were given and returned, in the order of their pass."""
    found = []
    for pair in pairs:
        our_call = call_of(our_calls, pair.ours)
        their_call = call_of(their_calls, pair.theirs, pair.layer_type)
        if our_call is None and (their_call is None or their_call.layer_type != pair.layer_type):
            continue  # a type of layer that there is not
        inputs = [None if call is None else call.given for call in (our_call, their_call)]
        for what, tap in next(taps for pattern, taps in TAPS if fnmatchcase(pair.ours, pattern)).items():
            our_value = None if our_call is None else tap(our_call, our_calls, pair.ours)
            their_value = None if their_call is None else tap(their_call, their_calls, pair.theirs)
            their_value = None if their_value is None else their_value[..., slice(*pair.columns)]
            steps = step_of(our_calls, pair.ours, what), step_of(their_calls, pair.theirs, what)
            found.append((*steps, Point(pair.ours, pair.theirs, what, our_value, their_value, *inputs)))
    return in_their_order(found)


def call_of(calls: Calls, name: str, layer_type: str | None = None) -> Call | None:
    """A module's first call, or its first for one type of layer if it is called once for each."""
    return next((call for call in calls.get(name, ()) if call.layer_type in (None, layer_type)), None)


def step_of(calls: Calls, name: str, what: str) -> int | None:
    """When a module was first given something, or first returned."""
    call = next(iter(calls.get(name, ())), None)
    return None if call is None else call.began if what == "input" else call.ended


def in_their_order(found: list[tuple[int | None, int | None, Point]]) -> list[Point]:
    """Points by the step of their pass; one that is in ours only comes after what is before it in ours."""
    latest, steps = -1, []
    for our_step, their_step, point in sorted(found, key=lambda entry: (entry[0] is None, entry[0])):
        latest = latest if our_step is None or their_step is None else their_step
        steps.append((latest if their_step is None else their_step, point))
    return [point for _, point in sorted(steps, key=lambda entry: entry[0])]


def by_token(value: Tensor, ids_BT: Tensor) -> Iterator[Tensor]:
    """A value as (B or 1, T, C), whatever its shape: (N, C), (B, T, C), heads (B, H, T, D) or heads (B, T, H, D).

    Where there are as many heads as tokens, the last two cannot be told apart, and both readings come; ours, which
    is (B, H, T, D) always, comes first.
    """
    tokens = ids_BT.shape[1]
    if value.dim() == 2 and len(value) == ids_BT.numel():
        value = value.unflatten(0, tuple(ids_BT.shape))
    if value.dim() == 3:
        yield value
    if value.dim() == 4 and value.shape[2] == tokens:
        yield value.transpose(1, 2).flatten(2)
    if value.dim() == 4 and value.shape[1] == tokens:
        yield value.flatten(2)


def exact(value: Tensor) -> Tensor:
    """A value in float64, on the CPU: not every device has that type."""
    return value.cpu().double()
