"""Questions that the table and the charts of `benchmarks.speed` ask of its figures."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.speed_rounds import FIRST
from benchmarks.speed_systems import OURS, SCRATCH, TRANSFORMERS

PEERS = (TRANSFORMERS, SCRATCH)


@dataclass
class View:
    """One measurement of one case."""

    case: dict
    measure: dict

    @property
    def title(self) -> str:
        return f"{self.case['shape']}, {self.case['dtype']}"

    @property
    def systems(self) -> list[dict]:
        return [system for system in self.case["systems"] if system["name"] in self.measure["seconds"]]

    def names(self, who: str, exact: bool = True) -> list[str]:
        """The systems of one library that were measured. `exact`: only those that keep the weights of the file."""
        return [one["name"] for one in self.systems if one["who"] == who and (one["exact"] or not exact)]

    def seconds(self, name: str) -> float:
        return statistics.median(self.measure["seconds"][name])

    def rate(self, name: str) -> float:
        """Tokens a second."""
        return self.measure["tokens"] / self.seconds(name)

    def best(self, *libraries: str) -> str | None:
        """The fastest system of these libraries, weights unchanged; None if none of them was measured."""
        names = [name for who in libraries for name in self.names(who)]
        return min(names, key=self.seconds, default=None)

    def floor(self) -> float:
        """Seconds of a step that only reads."""
        return statistics.median(seconds for each in self.measure["floor"].values() for seconds in each)

    def times_floor(self, name: str) -> float | None:
        """How many times as long as the floor, round by round; the median. None where there is no floor."""
        if not self.measure["floor"]:
            return None
        pairs = zip(self.measure["seconds"][name], self.measure["floor"][name], strict=True)
        return statistics.median(seconds / floor for seconds, floor in pairs)

    def times_product(self, name: str, product: str) -> float | None:
        """How many times as long as one product's reading of the weights, both in medians. None where there is no
        floor, or where that product was not measured."""
        rates = self.measure["rates"].get(product)
        if not self.measure["floor"] or not rates:
            return None
        return self.seconds(name) * statistics.median(rates) / self.measure["bytes"]

    def times(self, slower: str, faster: str) -> float:
        """How many times as long one takes as another, round by round; the median. Systems that were not in memory at
        the same time may have different numbers of rounds."""
        pairs = zip(self.measure["seconds"][slower], self.measure["seconds"][faster], strict=False)
        return statistics.median(first / second for first, second in pairs)

    def spread(self, name: str) -> tuple[float, float]:
        """The slowest and the fastest round, in tokens a second."""
        seconds = self.measure["seconds"][name]
        return self.measure["tokens"] / max(seconds), self.measure["tokens"] / min(seconds)

    def lead(self) -> float | None:
        """How many times as fast ours is as the best peer, to a hundredth; below 1, a peer is ahead."""
        ours, peer = self.best(OURS), self.best(*PEERS)
        return None if ours is None or peer is None else round(self.times(peer, ours), 2)

    def verdict(self) -> str | None:
        """One sentence where a peer is ahead; None where none is."""
        lead = self.lead()
        if lead is None or lead >= 1:
            return None
        ours, peer = self.best(OURS), self.best(*PEERS)
        overlap = self.spread(peer)[0] <= self.spread(ours)[1]
        within = ", which is within the spread of the rounds" if overlap else ""
        return (
            f"{self.title}, {described(self.measure)}: **{peer} is ahead of this package**, {self.quantity(peer)} "
            f"against {self.quantity(ours)} ({1 / lead - 1:.0%}){within}.{self.reason(ours, peer)}"
        )

    def reason(self, ours: str, peer: str) -> str:
        """What a turn of each under torch's profiler says of the difference; nothing where there was none."""
        parts = self.measure.get("parts", {})
        if not {ours, peer} <= parts.keys():
            return ""
        mine, theirs = parts[ours], parts[peer]
        total = {name: f"{sum(one.values()) * 1e3:.1f}" for name, one in parts.items()}
        if sum(mine.values()) <= sum(theirs.values()):
            return f" Once more, under torch's profiler, it was not: {total[peer]} ms against {total[ours]} ms."
        part = max(mine, key=lambda name: mine[name] - theirs[name])
        return (
            f" Under torch's profiler ({total[peer]} ms against {total[ours]} ms) most of that is in {part}: "
            f"{theirs[part] * 1e3:.1f} ms against {mine[part] * 1e3:.1f} ms."
        )

    def quantity(self, name: str) -> str:
        """What was measured, with its unit."""
        if self.measure["measure"] == FIRST:
            return f"{self.seconds(name) * 1e3:.1f} ms"
        return f"{figure(self.rate(name))} tokens/s"


def described(measure: dict) -> str:
    return f"{measure['measure']}, batch {measure['rows']}"


def views(report: dict, kind: str, rows: int | None = None) -> Iterator[View]:
    """All measurements whose title begins so."""
    for case in report["cases"]:
        for measure in case.get("measures", []):
            if measure["measure"].startswith(kind) and (rows is None or measure["rows"] == rows):
                yield View(case, measure)


def figure(value: float) -> str:
    """A number with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
