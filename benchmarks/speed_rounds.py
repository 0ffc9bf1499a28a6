"""What `benchmarks.speed` measures, in interleaved rounds: every system has its turn in every round, and the machine's
own bandwidth is taken right before each turn.

Shape suffixes: B batch, T tokens.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.speed_clock import Clock, timed
from benchmarks.speed_floor import Bandwidth, fastest, step_bytes
from benchmarks.speed_parts import ahead_and_ours, parts_of
from benchmarks.speed_shapes import Lengths
from benchmarks.speed_systems import System, medians
from course_helpers.architectures.config import ModelConfig

DECODE, PREFILL, FIRST, CONTEXT = "decode", "prefill", "first token", "context"
#: Seconds of one measurement by its title, for one system in one round.
Found = dict[str, float]


@dataclass
class Bench:
    """What all measurements of one model share."""

    config: ModelConfig
    dtype: torch.dtype
    device: str
    clock: Clock
    bandwidth: Bandwidth
    lengths: Lengths
    rounds: int
    budget: float  # seconds for all but the decoding of one row: what takes longer has fewer rounds

    def prompt(self, rows: int, tokens: int) -> Tensor:
        """(B, T) ids: the same for every system."""
        random = torch.Generator().manual_seed(7)
        return torch.randint(0, self.config.vocab_size, (rows, tokens), generator=random).to(self.device)

    def fits(self, lengths: Sequence[int]) -> list[int]:
        """Those of the lengths that the model was made for."""
        return [length for length in lengths if length <= self.config.max_position_embeddings]


def decoding(bench: Bench, rows: int, ends: Sequence[int]) -> Callable[[System, int], Found]:
    """The work of one turn: the seconds to the first token, and those of one step in this round's part of each span.

    A span is cut into as many parts as there are rounds; the middle ones come first, so that fewer rounds still stand
    for the whole. Up to its part a text is skipped, and one step there is not timed.
    """
    prompt_BT, lengths, parts = bench.prompt(rows, bench.lengths.prompt), bench.lengths, middle_first(bench.rounds)

    def turn(system: System, number: int) -> Found:
        found: Found = {}
        for end in ends:
            begun_BT = prompt_BT if not found else prompt_BT[:, :1]  # the first token is timed once a turn
            middle = lengths.prompt + (end - lengths.prompt) * (parts[number] + 0.5) / bench.rounds
            start = max(lengths.prompt, round(middle - lengths.steps / 2) - 1)
            first, found[f"{DECODE} {lengths.prompt} → {end}"] = one_text(bench, system, begun_BT, start, end)
            found.setdefault(FIRST, first)
        return found

    return turn


def at_contexts(bench: Bench, contexts: Sequence[int]) -> Callable[[System, int], Found]:
    """The work of one turn: the seconds of one step behind each of these many positions."""
    prompt_BT, lengths = bench.prompt(1, 1), bench.lengths

    def turn(system: System, number: int) -> Found:
        places = {f"{CONTEXT} {context}": context - lengths.steps - 1 for context in contexts}
        return {title: one_text(bench, system, prompt_BT, start, 0)[1] for title, start in places.items()}

    return turn


@torch.inference_mode()
def one_text(bench: Bench, system: System, prompt_BT: Tensor, start: int, end: int) -> tuple[float, float]:
    """Begin a text, skip to position `start`, take one step and then time some: seconds to the first token, cache
    included, and seconds a step. The cache has room for `end` positions, or for what is needed."""
    rows, steps, text = prompt_BT.shape[0], bench.lengths.steps, {}

    def begin() -> None:
        text["session"] = system.session(rows, max(end, start + 1 + steps))
        text["ids"] = text["session"].step(prompt_BT)
        text["ids"].tolist()  # somebody waits for it

    def step(times: int) -> None:
        for _ in range(times):
            text["ids"] = text["session"].step(text["ids"])

    first = timed(bench.clock, begin)
    if start > prompt_BT.shape[1]:
        text["session"].skip(start - prompt_BT.shape[1])
    step(1)
    return first, timed(bench.clock, lambda: step(steps)) / steps


def prefilling(bench: Bench, tokens: int) -> Callable[[System, int], Found]:
    """The work of one turn: one pass over a prompt of so many tokens, cache included, to the token after it."""
    prompt_BT = bench.prompt(1, tokens)

    @torch.inference_mode()
    def turn(system: System, number: int) -> Found:
        return {f"{PREFILL} {tokens}": timed(bench.clock, lambda: system.session(1, tokens).step(prompt_BT))}

    return turn


def middle_first(count: int) -> list[int]:
    return sorted(range(count), key=lambda part: abs(part - (count - 1) / 2))


def interleaved(
    bench: Bench,
    systems: Sequence[System],
    turn: Callable[[System, int], Found],
    rows: int = 1,
    limited: bool = True,
    floor: bool = True,
) -> list[dict]:
    """Measure in rounds, each with another system first. One entry for each title that the turns found: the seconds of
    every system in every round. With `floor`, the machine's rates are measured right before every turn. `limited`: a
    measurement that takes long has fewer rounds."""
    for system in systems:
        if system.compiled:  # what compiling takes is not counted
            system.ready()
            turn(system, 0)
    found: list[dict[str, Found]] = []
    rates: list[dict[str, dict[str, float]]] = []
    started, rounds = time.perf_counter(), bench.rounds
    while len(found) < rounds:
        number = len(found)
        found.append({})
        rates.append({})
        for system in rotated(systems, number):
            system.ready()
            rates[-1][system.name] = bench.bandwidth.measure() if floor else {}
            found[-1][system.name] = turn(system, number)
        if limited and number == 0:
            rounds = max(1, min(rounds, int(bench.budget / (time.perf_counter() - started))))
    entries = [entry(bench, title, rows, rates, found) for title in found[0][systems[0].name]]
    add_parts(bench, systems, turn, entries)
    return entries


def add_parts(
    bench: Bench, systems: Sequence[System], turn: Callable[[System, int], Found], entries: list[dict]
) -> None:
    """Where a peer is ahead: of which parts its time is made up, and of which ours. One more turn of each is enough for
    all that was measured in it."""
    known: dict[str, dict[str, dict[str, float]]] = {}
    for one in entries:
        for system in ahead_and_ours(systems, medians(one)) or ():
            if system.name not in known:
                known[system.name] = parts_of(bench, system, turn)
            one.setdefault("parts", {})[system.name] = known[system.name][one["measure"]]


def rotated(systems: Sequence[System], number: int) -> list[System]:
    number %= len(systems)
    return [*systems[number:], *systems[:number]]


def entry(
    bench: Bench, title: str, rows: int, rates: list[dict[str, dict[str, float]]], found: list[dict[str, Found]]
) -> dict:
    """One measurement as it is kept: `tokens` come in `seconds`, of every system in every round; `floor` is seconds,
    too, by the rates of that moment, where there is a floor; `rates` are those of all turns."""
    kind, _, length = title.rpartition(" ")
    steps = kind == CONTEXT or kind.startswith(DECODE)
    names = sorted(found[0])
    nbytes = step_bytes(bench.config, bench.dtype, rows, int(length) if kind == CONTEXT else 0) if steps else None
    turns = [one for each in rates for one in each.values()]
    return {
        "measure": title,
        "rows": rows,
        "tokens": int(length) if kind == PREFILL else rows,
        "bytes": nbytes,
        "floor": {name: [nbytes / fastest(each[name]) for each in rates] for name in names} if steps else None,
        "rates": {product: [one[product] for one in turns] for product in turns[0]},
        "seconds": {name: [each[name][title] for each in found] for name in names},
    }
