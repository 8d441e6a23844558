"""What a report is made of: a backtest's result with its tables, the bars that it traded, and the training of its model.

Reads the tables as strictly as bars are read. What does not belong together is an error: a page must not show a curve beside the figures of
another one.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars, DataError, cut
from ktrdr_zmq.results import EQUITY_COLUMNS, EXIT_REASONS, TRADE_COLUMNS, BacktestResult, TrainingResult


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its submitter and the broker know it. Times are ISO 8601, UTC; empty where they are not known."""

    id: str
    name: str = ""
    labels: dict[str, str] = {}
    submitter: str = ""
    submitted: str = ""
    finished: str = ""
    worker_id: str = ""
    tag: str = ""
    attempt: int = 1


class Equity(NamedTuple):
    """The equity curve, one row a bar; `closes` are nanoseconds since 1970, UTC."""

    closes: Array
    equity: Array
    drawdown: Array


class Material(NamedTuple):
    """Everything that a report shows.

    Attributes
    ----------
    job : Ran
    result : BacktestResult
    training : TrainingResult, optional
        Of the model; None where it is not known any more.
    training_job : Ran, optional
    equity : Equity
    trades : pandas data frame
        Columns of ``results.TRADE_COLUMNS``; times are nanoseconds since 1970, UTC.
    bars : Bars, optional
        The bars of the window, one for each row of `equity`; None where they are not there.
    software : dict
        Versions of what makes the page.
    notes : list of str
        What the reader should know of the page itself.
    """

    job: Ran
    result: BacktestResult
    training: TrainingResult | None
    training_job: Ran | None
    equity: Equity
    trades: pd.DataFrame
    bars: Bars | None
    software: dict[str, str]
    notes: list[str]


def read_equity(octets: bytes, result: BacktestResult) -> Equity:
    """Read the artifact ``equity``.

    Raises
    ------
    DataError
        When it is damaged, or not the one of this result.
    """
    table = _table(octets, EQUITY_COLUMNS, "equity curve")
    equity = Equity(_moments(table, "time", "equity curve"), *(_numbers(table, name, "equity curve") for name in ("equity", "drawdown")))
    final = result.metrics.equity_final
    if len(equity.equity) != result.window.bars or abs(equity.equity[-1] - final) > 1e-9 * max(abs(final), 1.0):
        raise DataError("The equity curve is not the one of this backtest: its length or its last value differs from the result.")
    return equity


def read_trades(octets: bytes, result: BacktestResult) -> pd.DataFrame:
    """Read the artifact ``trades``; errors as for `read_equity`."""
    table = _table(octets, TRADE_COLUMNS, "table of trades")
    for name in ("entry_time", "exit_time"):
        table[name] = _moments(table, name, "table of trades")
    for name in set(TRADE_COLUMNS) - {"entry_time", "exit_time", "side", "exit_reason"}:
        table[name] = _numbers(table, name, "table of trades")
    if len(table) != result.metrics.trades:
        raise DataError(f"The table of trades is not the one of this backtest: {len(table)} rows, {result.metrics.trades} trades.")
    if not (set(table["side"]) <= {"long", "short"} and set(table["exit_reason"]) <= set(EXIT_REASONS)):
        raise DataError("The table of trades has a side or an exit reason that is none.")
    return table


def window_of(bars: Bars, equity: Equity) -> Bars | None:
    """The bars that the equity curve has a row for each of; None where these bars are others."""
    first = int(np.searchsorted(bars.closes, equity.closes[0]))
    found = cut(bars, first, first + len(equity.closes))
    same = len(found.closes) == len(equity.closes) and bool((found.closes // 1_000_000_000 == equity.closes // 1_000_000_000).all())
    return found if same else None


def _table(octets: bytes, columns: tuple[str, ...], what: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(io.BytesIO(octets))
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"The {what} of the backtest cannot be read: {error}") from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(f"The {what} of the backtest lacks the columns: {', '.join(missing)}.")
    return table


def _moments(table: pd.DataFrame, column: str, what: str) -> Array:
    parsed = pd.to_datetime(table[column], utc=True, format="ISO8601", errors="coerce")
    if parsed.isna().any():
        raise DataError(f"The {what} of the backtest has a {column} that is no time.")
    found: Array = parsed.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    return found


def _numbers(table: pd.DataFrame, column: str, what: str) -> Array:
    values: Any = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"The {what} of the backtest has a {column} that is no number.")
    return np.asarray(values)
