"""Trades and equity curves as CSV, with the columns of `ktrdr_zmq.results`. Numbers are written so that reading gives the same bits.

Written a piece at a time, because an equity curve may have millions of rows: between two pieces the caller is told how far it is, and may
raise to stop.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.backtest import END_OF_DATA, RUIN, Outcome
from ktrdr_worker.trading.bars import Bars
from ktrdr_worker.trading.performance import drawdown_curve
from ktrdr_zmq.results import EQUITY_COLUMNS, EXIT_REASONS, TRADE_COLUMNS

Tick = Callable[[float], None]
PIECE: Final = 50_000
"""Rows that are written at once: some tenths of a second."""


def write_trades(path: Path, outcome: Outcome, bars: Bars, tick: Tick = lambda _share: None) -> Path:
    """Write the trades. Times are those of the bars' opens, but of the close where a position was closed at the close.

    Parameters
    ----------
    path : Path
    outcome : Outcome
    bars : Bars
        The window that was traded.
    tick : callable, optional
        Gets the share that is done, 0 to 1, before each piece.

    Returns
    -------
    Path
        The same path.
    """
    trades = outcome.trades
    at_close = np.isin(trades["exit_reason"], (END_OF_DATA, RUIN))
    columns = {
        **{name: trades[name] for name in TRADE_COLUMNS if name in trades.dtype.names},
        "entry_time": _moments(bars.opens[trades["entry_bar"]]),
        "exit_time": _moments(np.where(at_close, bars.closes[trades["exit_bar"]], bars.opens[trades["exit_bar"]])),
        "side": np.where(trades["side"] > 0, "long", "short"),
        "pnl_pct": trades["pnl"] / (trades["entry_price"] * trades["size"]),
        "exit_reason": np.array(EXIT_REASONS, dtype=object)[trades["exit_reason"]],
    }
    return _write(path, {name: columns[name] for name in TRADE_COLUMNS}, tick)


def write_equity(path: Path, outcome: Outcome, bars: Bars, capital: float, tick: Tick = lambda _share: None) -> Path:
    """Write the equity curve, a row for each bar's close; parameters as those of `write_trades`."""
    columns = {
        "time": _moments(bars.closes),
        "equity": outcome.equity,
        "drawdown": drawdown_curve(outcome.equity, capital),
        "position": outcome.position,
    }
    return _write(path, {name: columns[name] for name in EQUITY_COLUMNS}, tick)


def _moments(nanoseconds: Array) -> Array:
    moments: Array = nanoseconds.astype("datetime64[ns]").astype("datetime64[s]")
    return moments


def _write(path: Path, columns: dict[str, Any], tick: Tick) -> Path:
    count = len(next(iter(columns.values())))
    with path.open("w", encoding="utf-8", newline="") as file:
        for start in range(0, max(count, 1), PIECE):
            tick(start / max(count, 1))
            piece = {name: _texts(values[start : start + PIECE]) for name, values in columns.items()}
            pd.DataFrame(piece).to_csv(file, index=False, header=start == 0, lineterminator="\n")
    return path


def _texts(values: Array) -> Array:
    """Times as ISO 8601 (UTC); everything else as it is."""
    if values.dtype.kind != "M":
        return values
    texts: Array = np.datetime_as_string(values, timezone="UTC")
    return texts
