"""Does a model see what it cannot know yet? The whole way from bars to fills once over all bars, and again over bars that end earlier.

What is computed at a bar must not change when later bars are taken away. Both runs go through the very functions that a backtest uses, so
that a look ahead in any of them shows: in coarser bars, an indicator, a membership, the scaling, the network, the decisions or the fills.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from ktrdr_worker.trading import features as making
from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.backtest import Outcome, Rules, simulate
from ktrdr_worker.trading.bars import Bars, DataError, cut
from ktrdr_worker.trading.bundle import Trained
from ktrdr_worker.trading.decisions import decide
from ktrdr_worker.trading.frames import Frames, frames_of
from ktrdr_worker.trading.inference import predict

EXACT: Final = 1e-9
"""Bars, features and equity may differ by so much, relative to 1 or to their size: arithmetic in another order."""

CLOSE: Final = 1e-5
"""Outputs of the network may, in their unit: it computes with float32, and in other blocks where there are fewer bars."""

STEPS: Final = ("bar", "feature", "output", "decision", "fill")
"""On the way from bars to fills: where two differences begin at one bar, the earlier step is the cause."""


class Course(NamedTuple):
    """All that comes of some bars."""

    frames: Frames
    ids: list[str]
    features: Array
    outputs: Array
    decisions: Array
    outcome: Outcome
    first: int
    """The first bar that is decided on."""


class Difference(NamedTuple):
    """A value that changes when the bars after `last` are taken away.

    Attributes
    ----------
    bar : int
        Index of the first bar where it does.
    step, name : str
        One of STEPS, and which of its values.
    whole, part : float
        With all bars, and with those up to `last`; NaN is none.
    bars : int
        At how many bars it changes.
    largest : float
        By how much at most; infinite where there is a value in one run only.
    last : int
        Index of the last bar that was left.
    """

    bar: int
    step: str
    name: str
    whole: float
    part: float
    bars: int
    largest: float
    last: int


def course(model: Trained, frames: Frames, rules: Rules, device: str, tick: Callable[[float], None] = lambda _share: None) -> Course:
    """The way from bars to fills, as a backtest over all of them goes it.

    A bar that stands still is put behind the last one: what is open at the end is closed there, and equity at the last bar is as it would
    be if bars went on.
    """
    built = making.build(model.strategy, frames)
    outputs, first = predict(model, frames, device, tick)
    decisions = decide(outputs, model.strategy.decisions)
    bars = frames.bars
    prices: list[Array] = [np.append(column, bars.close[-1]) for column in (bars.open, bars.high, bars.low, bars.close)]
    outcome = simulate(prices[0], prices[1], prices[2], prices[3], np.append(decisions, decisions[-1:]), rules)
    return Course(frames, built.ids, built.values, outputs, decisions, outcome, first)


def unit(outputs: Array) -> float:
    """What outputs of a network are measured in: 1 for probabilities; for returns, how much they vary."""
    if outputs.ndim > 1:
        return 1.0
    return float(np.nanstd(outputs)) or 1.0


def sample(first: int, end: int, samples: int, seed: int, telling: Array | None = None) -> Array:
    """Choose bars from `first` up to, and without, `end`: so many, or all that there are; rising, the same for the same seed.

    Parameters
    ----------
    first, end, samples, seed : int
    telling : array of bool, optional
        Marks, over all bars, those of which half of the sample is to be.

    Raises
    ------
    DataError
        When there is none.
    """
    if end <= first:
        raise DataError(f"The first decision is made at bar {first:,}; there are not bars enough behind it to check anything.")
    candidates = np.arange(first, end)
    if samples >= len(candidates):
        return candidates
    chance = np.random.default_rng(seed)
    marked = candidates[:0] if telling is None else candidates[telling[first:end]]
    chosen = chance.choice(marked, min(samples // 2, len(marked)), replace=False)
    rest = np.setdiff1d(candidates, chosen)
    return np.sort(np.concatenate((chosen, chance.choice(rest, samples - len(chosen), replace=False))))


def turning(decisions: Array) -> Array:
    """Bars whose decision is another one than that of the bar before or behind: a look ahead in decisions or fills shows only there."""
    turns = np.flatnonzero(decisions[1:] != decisions[:-1])
    marks: Array = np.zeros(len(decisions), dtype=np.bool_)
    marks[turns] = marks[turns + 1] = True
    return marks


def differences(
    model: Trained, source: Bars, whole: Course, last: int, rules: Rules, device: str, tick: Callable[[float], None] = lambda _share: None
) -> list[Difference]:
    """What changes up to a bar when the source bars that close after it are taken away.

    Parameters
    ----------
    model : Trained
    source : Bars
        What all timeframes are made of.
    whole : Course
        Of all source bars.
    last : int
        Index of the last bar of the base timeframe that is left.
    rules : Rules
    device : str
    tick : callable, optional
        Called now and then, and may raise to stop.

    Returns
    -------
    list of Difference
        One for each value that changes, in the order of the steps.
    """
    end = int(np.searchsorted(source.closes, whole.frames.bars.closes[last], side="right"))
    frames = frames_of(cut(source, 0, end), model.strategy.timeframes, model.strategy.base, [], source.symbol)
    part = course(model, frames, rules, device, tick)
    found = [difference._replace(last=last) for difference in _compare(whole, part, model)]
    return sorted(found, key=lambda difference: (STEPS.index(difference.step), difference.bar))


def _compare(whole: Course, part: Course, model: Trained) -> Iterator[Difference]:
    count = len(part.frames.bars.opens)  # the last bar may be missing: nobody knew yet that it was complete
    yield from _bars(whole.frames, part.frames)
    for column, name in enumerate(whole.ids):
        yield from _column("feature", name, whole.features[:count, column], part.features[:, column], EXACT)
    names = ["return"] if part.outputs.ndim == 1 else model.description.classes
    tolerance = CLOSE * unit(whole.outputs)
    full, found = (outputs.reshape(len(outputs), -1) for outputs in (whole.outputs[:count], part.outputs))
    for column, name in enumerate(names):
        yield from _column("output", name, full[:, column], found[:, column], tolerance)
    # Where outputs agree but for rounding, those of the whole decide: a tie broken the other way is no look ahead.
    same = np.isclose(part.outputs, whole.outputs[:count], rtol=tolerance, atol=tolerance, equal_nan=True)
    decided = decide(np.where(same, whole.outputs[:count], part.outputs), model.strategy.decisions)
    yield from _column("decision", "decision", whole.decisions[:count], decided, 0.0)
    if (part.decisions == whole.decisions[:count]).all():
        yield from _fills(whole.outcome, part.outcome, count)


def _bars(whole: Frames, part: Frames) -> Iterator[Difference]:
    """Differences of bars, placed at the bar of the base timeframe at whose close each is known."""
    for timeframe, bars in part.by_timeframe.items():
        full = whole.by_timeframe[timeframe]
        count = min(len(bars.opens), len(full.opens))
        place = np.asarray(np.searchsorted(whole.bars.closes, full.closes[:count]))
        for name in ("opens", "closes", "open", "high", "low", "close", "volume"):
            tolerance = 0.0 if name in ("opens", "closes") else EXACT
            for found in _column("bar", f"{timeframe} {name}", getattr(full, name)[:count], getattr(bars, name)[:count], tolerance):
                yield found._replace(bar=int(place[found.bar]))


def _fills(whole: Outcome, part: Outcome, count: int) -> Iterator[Difference]:
    """Differences of equity, and of the trades that are closed."""
    yield from _column("fill", "equity", whole.equity[:count], part.equity[:count], EXACT)
    closed = part.trades[part.trades["exit_bar"] < count]
    other = whole.trades[: len(closed)]
    for name in ("entry_bar", "entry_price", "exit_bar", "exit_price", "pnl"):
        for found in _column("fill", name, other[name], closed[name][: len(other)], EXACT):
            yield found._replace(bar=int(closed["exit_bar"][found.bar]))


def _column(step: str, name: str, whole: Array, part: Array, tolerance: float) -> Iterator[Difference]:
    """The difference of one value over all bars, if there is any."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    differs = ~np.isclose(part, whole, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not differs.any():
        return
    places = np.flatnonzero(differs)
    first = int(places[0])
    sizes = np.abs(part[places] - whole[places])
    largest = float(np.where(np.isfinite(sizes), sizes, np.inf).max())
    yield Difference(first, step, name, float(whole[first]), float(part[first]), len(places), largest, 0)
