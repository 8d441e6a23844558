"""Purge and embargo against purgedcv, another implementation of Lopez de Prado's chapter 7."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_worker.trading.bars import Bars
from ktrdr_worker.trading.samples import Span, Table, split
from ktrdr_zmq.strategy import Strategy, find_strategy, parse_strategy
from tests.unit.trading.made import span, walk

pytestmark = pytest.mark.oracle


@functools.cache
def strategy_with(embargo: int) -> Strategy:
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2, "embargo": embargo}
    return parse_strategy(*find_strategy("neuro_mean_reversion"), {f"training.data_split.{key}": value for key, value in shares.items()})


def bars_with_gaps(chance: np.random.Generator, count: int) -> Bars:
    whole = walk(2 * count)
    kept = np.flatnonzero(chance.random(2 * count) < 0.6)
    return whole._replace(opens=whole.opens[kept], closes=whole.closes[kept])


def samples_of(chance: np.random.Generator, bars: Bars, number: int, horizon: int) -> Table:
    """Samples at most of the bars, with labels of any length up to the horizon."""
    at = np.flatnonzero(chance.random(len(bars.opens) - horizon) < 0.9)
    ends = at + chance.integers(0, horizon + 1, len(at))
    opens = bars.opens[at]
    return Table(np.zeros((len(at), 1)), at, np.full(len(at), number), at % 3, opens, opens, bars.opens[ends], bars.closes[ends])


def kept_by_oracle(part: np.ndarray, later: np.ndarray, table: Table, embargo: int) -> list[int]:
    """Rows of `part` whose labels do not overlap any of `later`, which is padded by the embargo (nanoseconds)."""
    purgedcv = pytest.importorskip("purgedcv")
    begins, over = (pd.Series(pd.to_datetime(moments, utc=True)) for moments in (table.opens, table.label_over))
    return [int(row) for row in purgedcv.purge(part, later, begins, over, pd.Timedelta(embargo, "ns"))]


def embargo_before(start: int, spans: list[Span], embargo: int) -> int:
    """Nanoseconds: so many bars before a moment, of the symbol where that is earliest; one that has ended does not count."""
    grids = [each.frames.bars.opens for each in spans]
    return start - min([start, *(int(opens[np.searchsorted(opens, start) - embargo]) for opens in grids if opens[-1] >= start)])


def compare(symbols: int, count: int, horizon: int, embargo: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    spans = [span(bars_with_gaps(chance, int(chance.integers(count // 2, count + 1)))) for _ in range(symbols)]
    blocks = [samples_of(chance, each.frames.bars, number, horizon) for number, each in enumerate(spans)]
    table = Table(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))
    found = split(strategy_with(embargo), table, spans)
    ordered = np.sort(table.opens)
    first, second = (int(ordered[round(len(ordered) * share)]) for share in (0.6, 0.8))
    opens = table.opens
    rows = [np.flatnonzero(opens < first), np.flatnonzero((opens >= first) & (opens < second)), np.flatnonzero(opens >= second)]
    for part, own, later, start in ((found.train, rows[0], rows[1], first), (found.validation, rows[1], rows[2], second)):
        assert part.rows.tolist() == kept_by_oracle(own, later, table, embargo_before(start, spans, embargo))
    assert found.test.rows.tolist() == rows[2].tolist()


@given(st.integers(300, 600), st.integers(1, 12), st.integers(0, 8), st.integers(0, 10_000))
def test_one_symbol(count: int, horizon: int, embargo: int, seed: int) -> None:
    """Labels of any length over bars with gaps."""
    compare(1, count, horizon, embargo, seed)


@given(st.integers(2, 4), st.integers(300, 500), st.integers(1, 12), st.integers(0, 8), st.integers(0, 10_000))
def test_several_symbols_at_common_moments(symbols: int, count: int, horizon: int, embargo: int, seed: int) -> None:
    """Symbols that trade at other times, and end at others."""
    compare(symbols, count, horizon, embargo, seed)
