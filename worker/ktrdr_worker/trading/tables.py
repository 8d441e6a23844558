"""Trades and equity curves as CSV, with the columns of `ktrdr_zmq.results`. Numbers are written so that reading gives the same bits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.backtest import END_OF_DATA, RUIN, Outcome
from ktrdr_worker.trading.bars import Bars
from ktrdr_worker.trading.performance import drawdown_curve
from ktrdr_zmq.results import EQUITY_COLUMNS, EXIT_REASONS, TRADE_COLUMNS


def trades_csv(outcome: Outcome, bars: Bars) -> bytes:
    """The trades. Times are those of the bars' opens, but of the close where a position was closed at the close."""
    trades = outcome.trades
    at_close = np.isin(trades["exit_reason"], (END_OF_DATA, RUIN))
    exits = np.where(at_close, bars.closes[trades["exit_bar"]], bars.opens[trades["exit_bar"]])
    columns = {
        "entry_time": _times(bars.opens[trades["entry_bar"]]),
        "exit_time": _times(exits),
        "side": np.where(trades["side"] > 0, "long", "short"),
        "pnl_pct": trades["pnl"] / (trades["entry_price"] * trades["size"]),
        "exit_reason": np.array(EXIT_REASONS, dtype=object)[trades["exit_reason"]],
    }
    return _csv({name: columns.get(name, trades[name] if name in trades.dtype.names else None) for name in TRADE_COLUMNS})


def equity_csv(outcome: Outcome, bars: Bars, capital: float) -> bytes:
    """The equity curve, a row for each bar's close."""
    columns = {
        "time": _times(bars.closes),
        "equity": outcome.equity,
        "drawdown": drawdown_curve(outcome.equity, capital),
        "position": outcome.position,
    }
    return _csv({name: columns[name] for name in EQUITY_COLUMNS})


def _times(nanoseconds: Array) -> Array:
    texts: Array = pd.DatetimeIndex(nanoseconds.astype("datetime64[ns]")).strftime("%Y-%m-%dT%H:%M:%SZ").to_numpy()
    return texts


def _csv(columns: dict[str, Any]) -> bytes:
    buffer = io.StringIO()
    pd.DataFrame(columns).to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue().encode()
