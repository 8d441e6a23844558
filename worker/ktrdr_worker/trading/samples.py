"""The samples of a training: bars of one or several symbols that have features and a label, and their chronological parts.

The symbols' feature matrices lie one after the other. Parts are cut at moments, the same for all symbols, so that no label of one symbol
tells what another one did in a later part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars, DataError, stamp
from ktrdr_worker.trading.features import Features
from ktrdr_worker.trading.frames import Frames
from ktrdr_worker.trading.labels import label
from ktrdr_worker.trading.splits import PartIndices, Split, pooled
from ktrdr_zmq import results
from ktrdr_zmq.strategy.schema import CLASSES, Strategy

FEWEST: Final = 10
"""Samples that each part must have."""


class Span(NamedTuple):
    """The bars of one symbol: samples are taken from base bar `first` up to, and without, `last`; no label looks at `last` or beyond."""

    frames: Frames
    first: int
    last: int


class Table(NamedTuple):
    """Samples, symbol by symbol, each read where its bar is.

    Attributes
    ----------
    values : array of float64, shape (rows, features)
        Unscaled features of all bars that a sample may read, symbol by symbol.
    positions : array of int64, shape (n,)
        The row of each sample's bar.
    symbols : array of int64, shape (n,)
        The number of each sample's symbol.
    targets : array of int64 or float32, shape (n,)
        Classes, or returns.
    opens, begins, label_opens, label_over : array of int64, shape (n,)
        Nanoseconds (UTC): when its bar opens; when the first bar that it reads opens; when the last bar that its label looks at opens, and
        when that is over.
    """

    values: Array
    positions: Array
    symbols: Array
    targets: Array
    opens: Array
    begins: Array
    label_opens: Array
    label_over: Array


def gather(strategy: Strategy, spans: Sequence[Span], features: Sequence[Features]) -> Table:
    """The samples of all symbols. None reads a row before its symbol's span, or before its features have values.

    Raises
    ------
    DataError
        When a symbol has none.
    """
    blocks, offset = [], 0
    for number, (span, built) in enumerate(zip(spans, features, strict=True)):
        blocks.append(_block(strategy, span, built, number, offset))
        offset += len(blocks[-1].values)
    return Table(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))


def _block(strategy: Strategy, span: Span, features: Features, number: int, offset: int) -> Table:
    """The samples of one symbol, whose rows begin at `offset`."""
    bars, last = span.frames.bars, span.last
    labelled = label(bars, strategy.training.labels, returns=strategy.regression)
    base = max(span.first, features.warmup)
    bar = np.arange(len(bars.opens))
    chosen = np.flatnonzero((bar >= base) & (labelled.ends < last) & labelled.known)
    if not len(chosen):
        raise DataError(f"Too few bars: none of {bars.symbol} {bars.timeframe} has both features and a label.")
    reads: Array = chosen - strategy.model.window + 1
    ends = labelled.ends[chosen]
    return Table(
        features.values[base:last], chosen - base + offset, np.full(len(chosen), number), labelled.targets[chosen], bars.opens[chosen],
        np.where(reads >= base, bars.opens[np.maximum(reads, 0)], np.iinfo(np.int64).min), bars.opens[ends], _over(bars)[ends],
    )  # fmt: skip


def _over(bars: Bars) -> Array:
    """When each bar is over: at its close, and when the next one opens at the latest (days of a changing clock overlap)."""
    following: Array = np.append(bars.opens[1:], np.iinfo(np.int64).max)
    return np.minimum(bars.closes, following)


def split(strategy: Strategy, table: Table, spans: Sequence[Span]) -> Split:
    """Cut samples into training, validation and test part.

    Raises
    ------
    DataError
        When a part has too few, or there is nothing to learn.
    """
    shares = strategy.training.data_split
    fractions = (shares.train, shares.validation, shares.test)
    parts = pooled(table.opens, table.label_over, table.begins, fractions, _embargo(spans, shares.embargo))
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if len(part.rows) < FEWEST:
            raise DataError(
                f"Too few bars: {len(table.opens)} of {spans[0].frames.base} have features and a label, which leaves {len(part.rows)} for "
                f"the {name} part ({part.purged} purged, {part.skipped} without a whole window); each part needs {FEWEST}."
            )
    if len(np.unique(table.targets[parts.train.rows])) < 2:
        raise DataError("All labels of the training part are the same: there is nothing to learn. Change training.labels.")
    return parts


def _embargo(spans: Sequence[Span], bars: int) -> Callable[[int], int]:
    """By when labels must be over before a part that begins at a moment: so many bars earlier, of the symbol where that is earliest."""

    def limit(boundary: int) -> int:
        found = [boundary]
        for span in spans:
            opens = span.frames.bars.opens
            index = int(np.searchsorted(opens, boundary))
            if index < len(opens):  # a symbol that has ended says nothing
                found.append(int(opens[max(index - bars, 0)]))
        return min(found)

    return limit


def seen(table: Table, cut: Split) -> tuple[int, int]:
    """From when on and up to when a model knows the bars: learned from, or looked at by a label, of the training and validation part."""
    rows = np.concatenate((cut.train.rows, cut.validation.rows))
    return int(table.opens[rows].min()), int(table.label_over[rows].max())


def describe(table: Table, part: PartIndices, symbols: Sequence[str]) -> results.Part:
    """What a result says of a part."""
    rows, targets = part.rows, table.targets[part.rows]
    counts = np.bincount(table.symbols[rows], minlength=len(symbols)).tolist()
    return results.Part(
        samples=len(rows), purged=part.purged, skipped=part.skipped, first=stamp(table.opens[rows].min()),
        last=stamp(table.opens[rows].max()), label_end=stamp(table.label_opens[rows].max()),
        class_counts=[] if targets.dtype.kind == "f" else np.bincount(targets, minlength=len(CLASSES)).tolist(),
        by_symbol=dict(zip(symbols, counts, strict=True)),
    )  # fmt: skip
