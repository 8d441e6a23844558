"""Bars of one symbol in all the timeframes that a strategy reads, and which of them are known when. No look at what lies ahead.

All are made of one source, so that they agree. At the close of a bar of the base timeframe another timeframe's bar is known if it is
complete then: its own close is no later. What is under way is not seen, not even in part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars, DataError, derive
from ktrdr_zmq.strategy.symbols import classify


class Frames(NamedTuple):
    """Bars by timeframe; decisions are made at the closes of those of `base`."""

    base: str
    by_timeframe: Mapping[str, Bars]

    @property
    def bars(self) -> Bars:
        """The bars that decisions are made on."""
        return self.by_timeframe[self.base]


def frames_of(source: Bars, timeframes: Sequence[str], base: str, warnings: list[str], name: str) -> Frames:
    """Make the bars of all timeframes.

    Parameters
    ----------
    source : Bars
        Of a timeframe that all the others are multiples of.
    timeframes : sequence of str
        `base` is one of them.
    base : str
    warnings : list of str
        Gets a line for each incomplete bar that was left out.
    name : str
        What to call the file in messages.

    Raises
    ------
    DataError
        When there is no complete bar of a timeframe.
    """
    found = {}
    for timeframe in timeframes:
        same = timeframe == source.timeframe
        bars = source if same else derive(source, timeframe, classify(source.symbol), warnings, name)
        if not len(bars.opens):
            raise DataError(f"{name} has too few bars for a single complete one of {timeframe}.")
        found[timeframe] = bars
    return Frames(base, found)


def known(frames: Frames, timeframe: str) -> Array:
    """The newest bar of a timeframe that is complete at the close of each base bar.

    Returns
    -------
    array of int64, shape (base bars,)
        Indices that never fall; -1 where there is none yet.
    """
    if timeframe == frames.base:
        return np.arange(len(frames.bars.opens))
    closes = frames.by_timeframe[timeframe].closes
    return np.asarray(np.searchsorted(closes, frames.bars.closes, side="right") - 1)
