"""Bars and strategies for the tests of the science."""

from __future__ import annotations

import numpy as np

from ktrdr_worker.trading.bars import MINUTE, Bars, session_numbers
from ktrdr_worker.trading.frames import Frames
from ktrdr_worker.trading.learning import Part
from ktrdr_worker.trading.samples import Span
from ktrdr_zmq.strategy.symbols import classify
from ktrdr_zmq.strategy.timeframes import MINUTES

START = 1_483_308_000_000_000_000  # 2017-01-01T22:00:00Z, a forex week begins


def apart(rows: np.ndarray, targets: np.ndarray) -> Part:
    """Samples that read a row each."""
    return Part(rows.astype(np.float32), np.arange(len(rows)), targets)


def walk(count: int, seed: int = 1, *, symbol: str = "EURUSD", timeframe: str = "1h", volatility: float = 0.002) -> Bars:
    """A random walk as bars; every high and low differs from open and close."""
    chance = np.random.default_rng(seed)
    close = np.exp(np.cumsum(chance.normal(0.0, volatility, count)))
    open_ = np.concatenate(([1.0], close[:-1])) * np.exp(chance.normal(0.0, volatility / 4, count))
    high = np.maximum(open_, close) * np.exp(np.abs(chance.normal(0.0, volatility / 2, count)) + 1e-6)
    low = np.minimum(open_, close) * np.exp(-np.abs(chance.normal(0.0, volatility / 2, count)) - 1e-6)
    length = MINUTES[timeframe] * MINUTE
    opens = START + np.arange(count) * length
    volume = chance.uniform(1.0, 2.0, count)
    sessions = session_numbers(opens, timeframe, classify(symbol))
    return Bars(symbol, timeframe, opens, opens + length, open_, high, low, close, volume, sessions)


def alone(bars: Bars) -> Frames:
    """The bars of a strategy with one timeframe."""
    return Frames(bars.timeframe, {bars.timeframe: bars})


def span(bars: Bars, first: int = 0, last: int | None = None) -> Span:
    """What to train on: one symbol, one timeframe."""
    return Span(alone(bars), first, len(bars.opens) if last is None else last)
