"""Purge and embargo against purgedcv, another implementation of Lopez de Prado's chapter 7."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_worker.trading.splits import chronological, pooled

pytestmark = pytest.mark.oracle

SHARES = (0.6, 0.2, 0.2)


def moments(values: np.ndarray) -> pd.Series:
    return pd.Series(pd.to_datetime(values, unit="h", utc=True))


def kept_by_oracle(part: np.ndarray, later: np.ndarray, begins: np.ndarray, over: np.ndarray, embargo: int) -> list[int]:
    """Rows of `part` whose labels do not overlap any of `later`, which is padded by the embargo."""
    purgedcv = pytest.importorskip("purgedcv")
    return [int(row) for row in purgedcv.purge(part, later, moments(begins), moments(over), pd.Timedelta(hours=embargo))]


@given(st.integers(20, 300), st.integers(1, 40), st.integers(0, 25), st.integers(0, 10_000))
def test_one_symbol(count: int, horizon: int, embargo: int, seed: int) -> None:
    """Labels of any length over bars with gaps."""
    chance = np.random.default_rng(seed)
    bars = np.flatnonzero(chance.random(count * 2) < 0.6)
    ends = bars + chance.integers(0, horizon + 1, len(bars))
    split = chronological(bars, ends, SHARES, embargo)
    n = len(bars)
    cuts = [0, round(n * 0.6), round(n * 0.8), n]
    rows = [np.arange(begin, end) for begin, end in zip(cuts, cuts[1:], strict=False)]
    for part, own, later in ((split.train, rows[0], rows[1]), (split.validation, rows[1], rows[2])):
        assert part.rows.tolist() == kept_by_oracle(own, later, bars, ends + 1, embargo)
    assert split.test.rows.tolist() == rows[2].tolist()


@given(st.integers(2, 4), st.integers(20, 80), st.integers(1, 20), st.integers(0, 10), st.integers(0, 10_000))
def test_several_symbols_at_common_moments(symbols: int, count: int, horizon: int, embargo: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    begins = np.concatenate([np.flatnonzero(chance.random(count * 2) < 0.6) for _ in range(symbols)])
    over = begins + chance.integers(1, horizon + 2, len(begins))
    split = pooled(begins, over, begins, SHARES, lambda boundary: boundary - embargo)
    ordered = np.sort(begins)
    first, second = ordered[round(len(ordered) * 0.6)], ordered[round(len(ordered) * 0.8)]
    rows = [np.flatnonzero(begins < first), np.flatnonzero((begins >= first) & (begins < second)), np.flatnonzero(begins >= second)]
    for part, own, later in ((split.train, rows[0], rows[1]), (split.validation, rows[1], rows[2])):
        assert part.rows.tolist() == kept_by_oracle(own, later, begins, over, embargo)
    assert split.test.rows.tolist() == rows[2].tolist()
