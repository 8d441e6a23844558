"""Bars of markets as they are: weekends, sessions, changes of the clock, and holes."""

from __future__ import annotations

import numpy as np

from ktrdr_worker.trading.bars import MINUTE, Bars, session_numbers
from ktrdr_worker.trading.bars.sessions import REGULAR, days_of, part_of_day, weekday
from ktrdr_zmq.strategy.symbols import classify
from ktrdr_zmq.strategy.timeframes import MINUTES

SYMBOLS = {"forex": "EURUSD", "crypto": "BTCUSD", "stock": "ACME"}
BEGIN = 1_488_751_200_000_000_000  # 2017-03-05T22:00:00Z: a forex week begins, and New York's clock changes within it


def market(kind: str, timeframe: str, count: int, seed: int, *, holes: float = 0.04, symbol: str = "") -> Bars:
    """A random walk in the hours in which such a market trades, with a share of its bars missing.

    Parameters
    ----------
    kind : str
        ``forex``, ``crypto`` or ``stock``.
    timeframe : str
        Up to 1d; days open at midnight, UTC.
    count : int
        Bars, holes included.
    """
    chance = np.random.default_rng(seed)
    symbol = symbol or SYMBOLS[kind]
    traits = classify(symbol)
    assert traits.name == kind
    length = MINUTES[timeframe] * MINUTE
    begin = BEGIN if kind == "forex" and timeframe != "1d" else BEGIN - BEGIN % (1440 * MINUTE)
    begin += length // 2 if kind == "stock" and timeframe == "1h" else 0  # hours of a day that opens at half past nine
    opens = begin + np.arange(count * 8) * length
    raw = _bars(symbol, timeframe, opens, np.ones(len(opens)), chance)
    days = days_of(raw, traits)
    open_for_trade = weekday(days) < traits.days_a_week
    if kind == "stock" and timeframe != "1d":
        open_for_trade &= part_of_day(raw, days, traits) == REGULAR
    chosen = np.flatnonzero(open_for_trade)[:count]
    chosen = chosen[chance.random(len(chosen)) >= holes]
    return _bars(symbol, timeframe, opens[chosen], np.exp(np.cumsum(chance.normal(0.0, 0.004, len(chosen)))), chance)


def _bars(symbol: str, timeframe: str, opens: np.ndarray, close: np.ndarray, chance: np.random.Generator) -> Bars:
    count = len(close)
    open_ = np.concatenate(([1.0], close[:-1])) * np.exp(chance.normal(0.0, 0.001, count))
    high = np.maximum(open_, close) * np.exp(np.abs(chance.normal(0.0, 0.002, count)) + 1e-6)
    low = np.minimum(open_, close) * np.exp(-np.abs(chance.normal(0.0, 0.002, count)) - 1e-6)
    volume = chance.uniform(1.0, 2.0, count)
    sessions = session_numbers(opens, timeframe, classify(symbol))
    return Bars(symbol, timeframe, opens, opens + MINUTES[timeframe] * MINUTE, open_, high, low, close, volume, sessions)
