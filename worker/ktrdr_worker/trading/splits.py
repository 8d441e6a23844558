"""Chronological parts of a data set, with purge and embargo. Index arithmetic; knows no bars.

A sample is a bar at whose close a decision is made; its label looks at bars up to ``label_end``. Where that bar lies in the next part, or
in the embargo before it, the sample would carry knowledge of that part into the one before: it is left out (Lopez de Prado, Advances in
Financial Machine Learning, 2018, chapter 7). A sample that reads a window of bars is left out where the window begins before its part.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array


class PartIndices(NamedTuple):
    """One part: `rows` are positions in the array of samples.

    `purged` counts what was left out for its label, `skipped` what was left out at the beginning for its window.
    """

    rows: Array
    purged: int
    skipped: int


class Split(NamedTuple):
    """The three parts, one after the other in time."""

    train: PartIndices
    validation: PartIndices
    test: PartIndices


def chronological(bars: Array, label_end: Array, fractions: tuple[float, float, float], embargo: int = 0, window: int = 1) -> Split:
    """Split samples into training, validation and test part.

    Parameters
    ----------
    bars : array of int64, shape (n,)
        The bar of each sample, strictly rising.
    label_end : array of int64, shape (n,)
        The last bar that each sample's label looks at; never before the sample's own bar.
    fractions : three floats
        Shares of the samples, above 0, with the sum 1.
    embargo : int
        Bars before a part that no label of an earlier part may look at either.
    window : int
        Bars that a sample reads, its own the last of them. None of them lies before the bar of the part's first sample, kept or not.

    Returns
    -------
    Split
        A part may be empty; that is for the caller to judge.
    """
    if bars.shape != label_end.shape or bars.ndim != 1:
        raise ValueError("bars and label_end must be of one length")
    if np.any(np.diff(bars) <= 0) or np.any(label_end < bars):
        raise ValueError("bars must rise, and no label can end before its bar")
    if min(fractions) <= 0 or abs(sum(fractions) - 1.0) > 1e-6 or embargo < 0 or window < 1:
        raise ValueError("three shares above 0 with the sum 1 are needed, an embargo of 0 or more, and a window of 1 or more")
    count = len(bars)
    first_cut = round(count * fractions[0])
    second_cut = round(count * (fractions[0] + fractions[1]))
    return Split(
        _part(bars, label_end, 0, first_cut, embargo, window),
        _part(bars, label_end, first_cut, second_cut, embargo, window),
        _part(bars, label_end, second_cut, count, embargo, window),
    )


def _part(bars: Array, label_end: Array, begin: int, end: int, embargo: int, window: int) -> PartIndices:
    rows = np.arange(begin, end)
    complete = rows[bars[rows] - window + 1 >= bars[begin]] if begin < end else rows
    kept = complete if end >= len(bars) else complete[label_end[complete] < bars[end] - embargo]
    return PartIndices(kept, len(complete) - len(kept), len(rows) - len(complete))
