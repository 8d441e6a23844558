"""How much history decisions need: the same bar, decided with more and more bars before it.

An indicator that forgets slowly (an exponential average, say) has values after its warm-up that still depend on where its bars began. A
backtest has long history before it and a live system perhaps has not: what differs between the two is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from ktrdr_worker.trading import features as making
from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars, DataError, cut
from ktrdr_worker.trading.bundle import Trained
from ktrdr_worker.trading.decisions import decide
from ktrdr_worker.trading.frames import Frames, frames_of
from ktrdr_worker.trading.inference import predict
from ktrdr_worker.trading.lookahead import unit
from ktrdr_zmq.strategy.schema import Filters
from ktrdr_zmq.strategy.timeframes import MINUTES

MULTIPLES: Final = (1, 2, 4, 8, 16)
"""Lengths of history that are tried, as multiples of the warm-up."""

REFINEMENTS: Final = 3
"""How often the stretch between the longest length that is too short and the shortest that is enough is halved."""

ENOUGH: Final = 1e-3
"""History is enough if no decision changes with all that there is, and no output of the network by more than this."""


class Reference(NamedTuple):
    """What all the history that there is gives, one row a bar; features as the network reads them."""

    ids: list[str]
    features: Array
    outputs: Array
    decisions: Array
    warmup: int


class Effect(NamedTuple):
    """What less history changes.

    Attributes
    ----------
    bars : int
        Length of the history, in bars of the base timeframe.
    samples : int
        Bars that could be decided with it.
    changed : int
        Decisions that differ from those with all history.
    feature : str
        The feature that differs most, as the network reads it; empty if none differs.
    largest_feature, largest_output : float
        By how much features and outputs differ at most; outputs in their `unit`.
    """

    bars: int
    samples: int
    changed: int
    feature: str
    largest_feature: float
    largest_output: float

    @property
    def settled(self) -> bool:
        """Whether so much history is enough."""
        return bool(self.samples) and not self.changed and self.largest_output <= ENOUGH


def plain(model: Trained) -> Trained:
    """The model without what would hide the effect: no history asked for, no decision passed over because of an earlier one."""
    strategy = model.strategy
    decisions = strategy.decisions.model_copy(update={"filters": Filters()})
    data = strategy.data.model_copy(update={"history_required": 0})
    return msgspec.structs.replace(model, strategy=strategy._replace(data=data, decisions=decisions))


def reference(model: Trained, frames: Frames, device: str) -> Reference:
    """Decide with all history; `model` is `plain`."""
    built = making.build(model.strategy, frames)
    outputs, warmup = predict(model, frames, device)
    features = making.scale(built.values, model.scalings)
    return Reference(built.ids, features, outputs, decide(outputs, model.strategy.decisions), warmup)


def lengths(warmup: int, count: int) -> list[int]:
    """Lengths of history that at least half of the bars have before them.

    Raises
    ------
    DataError
        When not even the warm-up is so short.
    """
    found = [multiple * max(warmup, 1) for multiple in MULTIPLES if 2 * multiple * max(warmup, 1) <= count]
    if not found:
        raise DataError(f"There are {count:,} bars; the check needs at least twice the warm-up of {warmup:,}.")
    return found


def effect(
    model: Trained, source: Bars, frames: Frames, full: Reference, chosen: Array, bars: int, device: str,
    tick: Callable[[float], None],
) -> Effect:  # fmt: skip
    """Decide at some bars with no more than so many bars before each.

    Parameters
    ----------
    model : Trained
        `plain`.
    source : Bars
        What all timeframes are made of.
    frames : Frames
        Of all source bars.
    full : Reference
    chosen : array of int64
        Indices of the bars to decide at; each has `bars` before it.
    bars : int
        The length of the history.
    device : str
    tick : callable
        Gets the share that is done before each bar, and may raise to stop.
    """
    used, rows, outputs = [], [], []
    for done, bar in enumerate(chosen.tolist()):
        tick(done / len(chosen))
        try:
            row, output = _decided(model, source, frames, bar, bars, device)
        except DataError:  # a longer timeframe has not bars enough here
            continue
        used.append(bar)
        rows.append(row)
        outputs.append(output)
    if not used:
        return Effect(bars, 0, 0, "", 0.0, 0.0)
    apart = np.abs(np.array(rows) - full.features[used])
    changed = decide(np.array(outputs), model.strategy.decisions) != full.decisions[used]
    column = int(np.unravel_index(int(apart.argmax()), apart.shape)[1])
    return Effect(
        bars, len(used), int(changed.sum()), full.ids[column] if apart.max() > 0 else "", float(apart.max()),
        float(np.abs(np.array(outputs) - full.outputs[used]).max()) / unit(full.outputs),
    )  # fmt: skip


def _decided(model: Trained, source: Bars, frames: Frames, bar: int, bars: int, device: str) -> tuple[Array, Array]:
    """Features as the network reads them, and its outputs, at a bar with so many before it.

    Raises
    ------
    DataError
        When an indicator has no value there.
    """
    first = int(np.searchsorted(source.opens, _begin(frames, bar - bars)))
    end = int(np.searchsorted(source.closes, frames.bars.closes[bar], side="right"))
    strategy = model.strategy
    short = frames_of(cut(source, first, end), strategy.timeframes, strategy.base, [], source.symbol)
    outputs, _ = predict(model, short, device)
    if short.bars.opens[-1] != frames.bars.opens[bar] or not np.isfinite(outputs[-1]).all():
        raise DataError(f"Bar {bar} cannot be decided on with {bars} bars before it.")
    return making.scale(making.build(strategy, short).values[-1:], model.scalings)[0], outputs[-1]


def measure(effect: Callable[[int, float, float], Effect], tried: Sequence[int]) -> list[Effect]:
    """What each of these lengths changes, and some between the longest that is too short and the shortest that is enough.

    Parameters
    ----------
    effect : callable
        Measures a length; also gets the shares of the work that are done before and after it.
    tried : sequence of int
        Rising.

    Returns
    -------
    list of Effect
        By length.
    """
    count = len(tried) + REFINEMENTS
    found = [effect(bars, index / count, (index + 1) / count) for index, bars in enumerate(tried)]
    for index in range(len(tried), count):
        enough = recommended(found)
        short = max((each.bars for each in found if enough is not None and each.bars < enough), default=0)
        if enough is None or not short or enough - short < 2:
            break
        found.append(effect((short + enough) // 2, index / count, (index + 1) / count))
        found.sort()
    return found


def recommended(effects: Sequence[Effect]) -> int | None:
    """The shortest history from which on nothing changes any more that matters; None if there is none among those tried."""
    found = None
    for each in reversed(effects):
        if not each.settled:
            break
        found = each.bars
    return found


def _begin(frames: Frames, bar: int) -> int:
    """Where to cut so that `bar` is the first one.

    Rounded down to the beginning of a bar of the longest timeframe, because one that is there only in part would be left out.
    """
    longest = frames.by_timeframe[max(frames.by_timeframe, key=MINUTES.__getitem__)]
    moment = int(frames.bars.opens[bar])
    place = int(np.searchsorted(longest.opens, moment, side="right")) - 1
    return min(moment, int(longest.opens[max(place, 0)]))
