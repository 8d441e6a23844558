"""The figures of a backtest, and the times in its tables, against numbers that were worked out by hand."""

from __future__ import annotations

import csv
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest

from ktrdr_worker.trading.backtest import END_OF_DATA, SIGNAL, TRADE_DTYPE, Outcome, Rules, simulate
from ktrdr_worker.trading.bars import Bars
from ktrdr_worker.trading.performance import DAY, Clock, annual_return, measure, sharpe, sortino
from ktrdr_worker.trading.tables import write_equity, write_trades
from ktrdr_zmq.results import BacktestMetrics
from tests.unit.trading.made import START

pytestmark = pytest.mark.timeout(120)

EIGHTH = int(365.25 / 8 * DAY)
"""An eighth of a year: four bars are half a year, so that CAGR is the total growth squared."""

RETURNS = np.array([0.10, -0.05, 0.05, -0.02])
"""Mean 0.02; squares of the deviations 0.0064 + 0.0049 + 0.0009 + 0.0016 = 0.0138; squares of the losses 0.0025 + 0.0004 = 0.0029."""

EQUITY = [110.0, 104.5, 109.725, 107.5305]
"""What 100 become with these returns."""


def outcome_of(equity: list[float], trades: list[dict[str, float]] | None = None) -> Outcome:
    """An outcome that no kernel made."""
    table = np.zeros(len(trades or []), dtype=TRADE_DTYPE)
    for row, trade in zip(table, trades or [], strict=True):
        for name, value in trade.items():
            row[name] = value
    return Outcome(table, np.array(equity), np.zeros(len(equity)), np.zeros(len(equity), dtype=np.bool_))


def by_hand(periods_per_year: float = 16, bars_a_session: int = 1) -> BacktestMetrics:
    """Four sessions with `RETURNS`, each bar an eighth of a year over the number of bars in it; 16 sessions make a year: the root is 4."""
    equity = np.repeat(EQUITY, bars_a_session)
    if bars_a_session > 1:
        equity[::bars_a_session] *= 0.999  # inside a session; the last bar of each counts
    length = EIGHTH // bars_a_session
    opens = START + np.arange(len(equity)) * length
    close = np.linspace(50.0, 65.0, len(equity))
    return measure(
        outcome_of(equity.tolist()), close, Clock(opens, opens + length, np.arange(len(equity)) // bars_a_session, periods_per_year), 100.0
    )


# ---------------------------------------------------------------- a year's figures


def test_the_sharpe_ratio_is_mean_over_deviation_times_the_root_of_the_sessions_of_a_year() -> None:
    assert by_hand().sharpe_ratio == pytest.approx(0.02 / math.sqrt(0.0138 / 3) * 4)
    assert by_hand().sharpe_ratio == pytest.approx(1.17954, rel=1e-5)
    assert sharpe(RETURNS, 252) == pytest.approx(4.68115, rel=1e-5)


def test_the_sortino_ratio_counts_losses_only_and_over_all_returns() -> None:
    assert by_hand().sortino_ratio == pytest.approx(0.02 / math.sqrt(0.0029 / 4) * 4)
    assert by_hand().sortino_ratio == pytest.approx(2.97113, rel=1e-5)
    assert sortino(RETURNS, 252) == pytest.approx(11.79128, rel=1e-5)


def test_the_annual_volatility_has_ddof_one_and_the_root_of_the_sessions_of_a_year() -> None:
    assert by_hand().annual_volatility == pytest.approx(math.sqrt(0.0138 / 3) * 4)
    assert by_hand().annual_volatility == pytest.approx(0.271293, rel=1e-5)


def test_the_annual_return_grows_over_the_sessions_of_a_year() -> None:
    """Four of sixteen sessions are a quarter of a year: the growth to the power of four."""
    assert by_hand().annual_return == pytest.approx(1.075305**4 - 1)
    assert by_hand().annual_return == pytest.approx(0.336985, rel=1e-5)
    assert annual_return(np.array([0.1, 0.1]), 1) == pytest.approx(0.1)  # two years of ten per cent each
    assert annual_return(np.array([0.1]), 2) == pytest.approx(0.21)


def test_cagr_grows_over_calendar_days() -> None:
    """Half a year: the growth squared, whatever a session is."""
    assert by_hand().cagr == pytest.approx(1.075305**2 - 1)
    assert by_hand(periods_per_year=252).cagr == pytest.approx(0.156281, rel=1e-5)


def test_the_calmar_ratio_is_the_annual_return_over_the_deepest_fall() -> None:
    assert by_hand().max_drawdown == pytest.approx(-0.05)
    assert by_hand().calmar_ratio == pytest.approx((1.075305**4 - 1) / 0.05)
    assert by_hand().calmar_ratio == pytest.approx(6.73971, rel=1e-5)


def test_the_total_return_is_a_fraction_and_holding_is_compared_from_close_to_close() -> None:
    assert by_hand().total_return == pytest.approx(0.075305)
    assert by_hand().buy_hold_return == pytest.approx(65 / 50 - 1)
    assert by_hand().equity_final == 107.5305


def test_the_duration_goes_from_the_first_open_to_the_last_close() -> None:
    assert by_hand().duration_days == pytest.approx(365.25 / 2)
    assert by_hand(bars_a_session=3).duration_days == pytest.approx(365.25 / 2)


def test_finer_bars_change_no_figure_of_a_year() -> None:
    coarse, fine = by_hand(), by_hand(bars_a_session=3)
    for name in ("sharpe_ratio", "sortino_ratio", "annual_volatility", "annual_return", "cagr"):
        assert getattr(fine, name) == pytest.approx(getattr(coarse, name)), name


# ---------------------------------------------------------------- figures of trades

TRADES: list[dict[str, float]] = [
    {"side": 1, "size": 10, "entry_price": 20.0, "pnl": 30.0, "commission": 0.5, "slippage": 0.25, "bars_held": 2},
    {"side": -1, "size": 5, "entry_price": 40.0, "pnl": -10.0, "commission": 0.75, "slippage": 0.5, "bars_held": 9},
    {"side": 1, "size": 100, "entry_price": 4.0, "pnl": 4.0, "commission": 1.0, "slippage": 2.0, "bars_held": 1},
]
"""Fractions of what went in (200, 200, 400): 0.15, -0.05, 0.01."""


def of_trades() -> BacktestMetrics:
    opens = START + np.arange(2) * int(DAY)
    clock = Clock(opens, opens + int(DAY), np.arange(2), 252)
    return measure(outcome_of([110.0, 124.0], TRADES), np.ones(2), clock, 100.0)


def test_best_worst_and_average_trade_are_fractions_of_what_went_in() -> None:
    metrics = of_trades()
    assert metrics.best_trade == pytest.approx(0.15)
    assert metrics.worst_trade == pytest.approx(-0.05)
    assert metrics.avg_trade == pytest.approx(0.11 / 3)


def test_bars_held_are_averaged_and_costs_added_up() -> None:
    metrics = of_trades()
    assert metrics.avg_bars_held == pytest.approx(4.0)
    assert metrics.max_bars_held == 9
    assert metrics.commission_paid == pytest.approx(2.25)
    assert metrics.slippage_paid == pytest.approx(2.75)


def test_wins_and_losses_of_three_trades() -> None:
    metrics = of_trades()
    assert (metrics.trades, metrics.long_trades, metrics.short_trades) == (3, 2, 1)
    assert metrics.win_rate == pytest.approx(2 / 3)
    assert metrics.profit_factor == pytest.approx(3.4)
    assert metrics.expectancy == pytest.approx(8.0)
    assert metrics.kelly == pytest.approx(2 / 3 - (1 / 3) / (17 / 10))
    assert metrics.sqn == pytest.approx(math.sqrt(3) * 8 / math.sqrt((22**2 + 18**2 + 4**2) / 2))


def test_costs_of_one_trade_from_the_kernel_to_the_figures() -> None:
    """Half of 1000 at 10, 1 % slippage, 2 % commission: bought at 10.1, sold at 12 less 1 % = 11.88."""
    prices = np.array([10.0, 10.0, 12.0])
    outcome = simulate(
        prices,
        prices,
        prices,
        prices,
        np.array([1, -1, 0], dtype=np.int8),
        Rules(1000.0, 0.5, commission=0.02, slippage=0.01, allow_short=False),
    )
    opens = START + np.arange(3) * int(DAY)
    metrics = measure(outcome, prices, Clock(opens, opens + int(DAY), np.arange(3), 252), 1000.0)
    size = 500 / (10.1 * 1.02)
    assert metrics.trades == 1
    assert metrics.commission_paid == pytest.approx(size * 0.02 * (10.1 + 11.88))
    assert metrics.slippage_paid == pytest.approx(size * (0.1 + 0.12))
    assert metrics.avg_trade == pytest.approx((11.88 - 10.1 - 0.02 * (10.1 + 11.88)) / 10.1)
    assert metrics.total_return == pytest.approx(size * (11.88 - 10.1 - 0.02 * (10.1 + 11.88)) / 1000)


# ---------------------------------------------------------------- tables

HOUR = 3_600_000_000_000


def hours(rows: list[tuple[float, float, float, float]]) -> Bars:
    """Bars of an hour that begin every two hours: a bar's close is not the next one's open. The first opens at 22:00 on 2017-01-01."""
    opens = START + np.arange(len(rows)) * 2 * HOUR
    columns = np.array(rows).T
    return Bars("EURUSD", "1h", opens, opens + HOUR, *columns, np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64))


STILL = (10.0, 10.0, 10.0, 10.0)


def tables(bars: Bars, decisions: list[int], **rules: object) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    account = Rules(1000.0, **rules)  # type: ignore[arg-type]
    outcome = simulate(bars.open, bars.high, bars.low, bars.close, np.array(decisions, dtype=np.int8), account)
    with tempfile.TemporaryDirectory() as folder:
        trades = write_trades(Path(folder) / "trades", outcome, bars)
        equity = write_equity(Path(folder) / "equity", outcome, bars, account.capital)
        return rows_of(trades), rows_of(equity)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize(
    "rows,decisions,rules,side,entry,left,reason",
    [
        ([STILL] * 4, [1, -1, 0, 0], {"allow_short": False}, "long", "2017-01-02T00:00:00Z", "2017-01-02T02:00:00Z", "signal"),
        ([STILL] * 4, [-1, 0, 1, 0], {"allow_short": True}, "short", "2017-01-02T00:00:00Z", "2017-01-02T04:00:00Z", "signal"),
        ([STILL] * 4, [1, 0, 0, 0], {"max_holding_bars": 2}, "long", "2017-01-02T00:00:00Z", "2017-01-02T04:00:00Z", "max_holding"),
        (
            [STILL, STILL, (10.0, 10.0, 8.5, 9.5), STILL],
            [1, 0, 0, 0],
            {"stop_loss": 0.1},
            "long",
            "2017-01-02T00:00:00Z",
            "2017-01-02T02:00:00Z",
            "stop_loss",
        ),
        (
            [STILL, STILL, (10.0, 10.0, 8.5, 9.5), STILL],
            [-1, 0, 0, 0],
            {"take_profit": 0.1},
            "short",
            "2017-01-02T00:00:00Z",
            "2017-01-02T02:00:00Z",
            "take_profit",
        ),
        ([STILL] * 4, [0, 1, 0, 0], {}, "long", "2017-01-02T02:00:00Z", "2017-01-02T05:00:00Z", "end_of_data"),
        (
            [STILL, STILL, (10.0, 25.0, 10.0, 25.0), STILL],
            [-1, 0, 0, 0],
            {},
            "short",
            "2017-01-02T00:00:00Z",
            "2017-01-02T03:00:00Z",
            "ruin",
        ),
    ],
)
def test_a_trade_has_the_opens_of_its_fills_and_the_close_where_it_ended_at_a_close(
    rows: list[tuple[float, float, float, float]],
    decisions: list[int],
    rules: dict[str, object],
    side: str,
    entry: str,
    left: str,
    reason: str,
) -> None:
    trade = tables(hours(rows), decisions, **rules)[0][0]
    assert (trade["side"], trade["entry_time"], trade["exit_time"], trade["exit_reason"]) == (side, entry, left, reason)


def test_the_equity_curve_has_the_closes_of_the_bars() -> None:
    rows = [STILL, (10.0, 12.0, 10.0, 12.0), (12.0, 12.0, 9.0, 9.0)]
    _, equity = tables(hours(rows), [1, 0, 0])
    assert [row["time"] for row in equity] == ["2017-01-01T23:00:00Z", "2017-01-02T01:00:00Z", "2017-01-02T03:00:00Z"]
    assert [float(row["equity"]) for row in equity] == pytest.approx([1000.0, 1200.0, 900.0])
    assert [float(row["drawdown"]) for row in equity] == pytest.approx([0.0, 0.0, -0.25])
    assert [float(row["position"]) for row in equity] == pytest.approx([0.0, 100.0, 0.0])


def test_a_trade_in_the_table_says_what_share_it_won() -> None:
    trades, _ = tables(hours([STILL, STILL, (12.0, 12.0, 12.0, 12.0)]), [1, -1, 0], fraction=0.5, allow_short=False)
    assert [(float(row["size"]), float(row["pnl"]), float(row["pnl_pct"]), int(row["bars_held"])) for row in trades] == [
        (50.0, 100.0, 0.2, 1)
    ]
    assert trades[0]["exit_reason"] == "signal"
    assert (SIGNAL, END_OF_DATA) == (0, 5)
