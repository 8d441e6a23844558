"""What a backtest returns, and the columns of the tables that come with it."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

from ktrdr_zmq.results.document import DataUsed, Document
from ktrdr_zmq.results.metrics import BacktestMetrics

TRADE_COLUMNS: Final[tuple[str, ...]] = (
    "entry_time", "entry_price", "exit_time", "exit_price", "side", "size", "pnl", "pnl_pct", "commission", "mae", "mfe",
    "bars_held", "exit_reason",
)  # fmt: skip
"""Columns of the artifact ``trades``: fill times (UTC) and prices, ``side`` long or short, ``size`` in units of the symbol,
``pnl`` and ``commission`` in currency, ``pnl_pct``, ``mae`` and ``mfe`` as fractions of the entry."""

EQUITY_COLUMNS: Final[tuple[str, ...]] = ("time", "equity", "drawdown", "position")
"""Columns of the artifact ``equity``, one row a bar: its CLOSE time (UTC), equity there, fall below the highest before as a fraction
(zero or negative), units held (negative: short)."""

EXIT_REASONS: Final[tuple[str, ...]] = ("signal", "stop_loss", "take_profit", "max_holding", "ruin", "end_of_data")
"""Why a position was closed; the kernel returns the index."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The bars a backtest ran over, and how many of them the model had seen in training.

    ``first`` and ``last`` are opens (ISO 8601, UTC). ``chosen`` is true where the job named a start or end; otherwise the window is what
    the model never saw. ``seen_bars`` counts bars from the first one that the model learned from to the last one that a training or
    validation label looks at.
    """

    first: str
    last: str
    bars: int
    chosen: bool
    seen_bars: int


class BacktestResult(Document, frozen=True, kw_only=True):
    """What a backtest returns; its trades and its equity curve are the artifacts ``trades`` and ``equity`` (CSV).

    ``signals`` counts the model's decisions over the window, after the confidence threshold and the minimum separation, by class.
    ``conventions`` states in words and numbers how the figures came about. ``digest`` is ``outcome_digest``: the same job gives the same
    one on every worker with an equal ``fingerprint``, in whatever order and beside whatever else.
    """

    KIND: ClassVar[str] = "backtesting"

    strategy_name: str
    symbol: str
    timeframe: str
    timeframes: list[str]
    overrides: dict[str, Any]
    data: DataUsed
    window: Window
    in_sample: bool
    capital: float
    commission_bps: float
    slippage_bps: float
    metrics: BacktestMetrics
    signals: dict[str, int]
    open_at_end: bool
    model_digest: str
    artifacts: dict[str, str]
    device: str
    duration_s: float
    fingerprint: dict[str, str]
    conventions: dict[str, Any]
    warnings: list[str]
    digest: str
