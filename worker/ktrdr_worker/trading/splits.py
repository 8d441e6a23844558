"""Chronological parts of a data set, with purge and embargo. Arithmetic of moments; knows no bars.

A sample is a bar at whose close a decision is made; its label looks at bars up to ``label_end``. Where that bar lies in the next part, or
in the embargo before it, the sample would carry knowledge of that part into the one before: it is left out (Lopez de Prado, Advances in
Financial Machine Learning, 2018, chapter 7). A sample that reads a window of bars is left out where the window begins before its part.
"""

from __future__ import annotations

from collections.abc import Callable
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


def pooled(moments: Array, over: Array, begins: Array, fractions: tuple[float, float, float], limit: Callable[[int], int]) -> Split:
    """Split samples, of one symbol or several, at moments common to all.

    Parameters
    ----------
    moments : array of int64, shape (n,)
        When the bar of each sample opens; in any order, and several may have the same.
    over : array of int64, shape (n,)
        When the last bar that each sample's label looks at is over: after the moment.
    begins : array of int64, shape (n,)
        When the first bar that each sample reads opens. None of it lies before the first sample of the part, kept or not.
    fractions : three floats
        Shares of the samples, above 0, with the sum 1.
    limit : callable
        By when the labels of a part must be over, from the moment at which the next one begins.
    """
    if not moments.shape == over.shape == begins.shape or moments.ndim != 1:
        raise ValueError("moments, over and begins must be of one length")
    if np.any(over <= moments) or np.any(begins > moments):
        raise ValueError("no label must be over before its bar, and nothing must be read that comes later")
    if min(fractions) <= 0 or abs(sum(fractions) - 1.0) > 1e-6:
        raise ValueError("three shares above 0 with the sum 1 are needed")
    ordered = np.sort(moments)
    cuts = (round(len(ordered) * fractions[0]), round(len(ordered) * (fractions[0] + fractions[1])))
    starts = [int(ordered[cut]) if cut < len(ordered) else None for cut in cuts]
    part: Array = np.zeros(len(moments), dtype=np.int64)
    for start in starts:
        part += moments >= start if start is not None else 0
    found = []
    for number, following in enumerate((*starts, None)):
        rows = np.flatnonzero(part == number)
        complete = rows[begins[rows] >= moments[rows].min()] if len(rows) else rows
        kept = complete if following is None else complete[over[complete] <= limit(following)]
        found.append(PartIndices(kept, len(complete) - len(kept), len(rows) - len(complete)))
    return Split(*found)
