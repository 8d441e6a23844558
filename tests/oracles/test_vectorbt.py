"""PnL, profit factor and expectancy in money, against vectorbt; in an environment of its own (`tox -e oracles-vectorbt`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("vectorbt", exc_type=ImportError)

import vectorbt

from ktrdr_worker.trading.backtest import Outcome, Rules, simulate
from ktrdr_worker.trading.bars import Bars, load
from ktrdr_worker.trading.performance import Clock, measure
from ktrdr_zmq.results import BacktestMetrics
from ktrdr_zmq.samples import find_sample
from tests.oracles.test_backtesting_py import BRACKETS, SAMPLES

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

COSTS = {"commission": 0.0005, "slippage": 0.0003}


@pytest.fixture(scope="module", params=SAMPLES, ids=lambda sample: sample[0])
def bars(request: pytest.FixtureRequest) -> Bars:
    symbol, timeframe = request.param
    sample = find_sample(symbol, timeframe)
    assert sample is not None
    return load(sample.path, sample.path.name, symbol, timeframe, timeframe).bars


def traded(bars: Bars, rules: Rules) -> tuple[np.ndarray, Outcome, BacktestMetrics]:
    """Decisions by chance that end flat, and what we make of them."""
    decisions = np.random.default_rng(5).choice(np.array([-1, 0, 1], dtype=np.int8), len(bars.opens), p=[0.05, 0.9, 0.05])
    decisions[-2:] = -1
    outcome = simulate(bars.open, bars.high, bars.low, bars.close, decisions, rules)
    return decisions, outcome, measure(outcome, bars.close, Clock(bars.opens, bars.closes, bars.sessions, 252), rules.capital)


def compare(portfolio: Any, outcome: Outcome, metrics: BacktestMetrics) -> None:
    theirs = portfolio.trades
    assert len(outcome.trades) == theirs.count() > 100
    np.testing.assert_allclose(outcome.trades["pnl"], theirs.pnl.values, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(outcome.trades["size"], theirs.records["size"], rtol=1e-9)
    np.testing.assert_allclose(outcome.trades["entry_price"], theirs.records["entry_price"], rtol=1e-12)
    np.testing.assert_allclose(outcome.trades["exit_price"], theirs.records["exit_price"], rtol=1e-12)
    assert metrics.profit_factor == pytest.approx(theirs.profit_factor(), rel=1e-9)
    assert metrics.expectancy == pytest.approx(theirs.expectancy(), rel=1e-9)
    assert metrics.win_rate == pytest.approx(theirs.win_rate(), rel=1e-12)
    assert metrics.sqn == pytest.approx(theirs.sqn(), rel=1e-9)
    assert metrics.commission_paid == pytest.approx(portfolio.orders.fees.sum(), rel=1e-9)
    assert metrics.equity_final - 1e5 == pytest.approx(portfolio.total_profit(), rel=1e-9)


def test_its_own_simulation_of_a_long_account(bars: Bars) -> None:
    """From signals: it finds fills, sizes and costs itself."""
    rules = Rules(1e5, allow_short=False, **COSTS)
    decisions, outcome, metrics = traded(bars, rules)
    before = np.append(np.int8(0), decisions[:-1])  # filled one bar later
    portfolio = vectorbt.Portfolio.from_signals(
        bars.close, before > 0, before < 0, price=bars.open, init_cash=rules.capital, fees=rules.commission, slippage=rules.slippage,
        freq="1D",
    )  # fmt: skip
    compare(portfolio, outcome, metrics)
    np.testing.assert_allclose(outcome.equity, portfolio.value().to_numpy(), rtol=1e-9)


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_its_account_of_our_fills_long_and_short_with_stops_and_targets(bars: Bars, fraction: float) -> None:
    """From orders, one a row: it adds slippage and fees to the raw prices, and keeps the books; with money enough to refuse none."""
    rules = Rules(1e5, fraction=fraction, max_holding_bars=20, **COSTS, **BRACKETS[bars.symbol])
    _, outcome, metrics = traded(bars, rules)
    trades = outcome.trades
    side = trades["side"]
    entries, exits = trades["entry_price"] / (1 + side * rules.slippage), trades["exit_price"] / (1 - side * rules.slippage)
    prices = np.column_stack([entries, exits]).ravel()
    sizes = np.column_stack([side * trades["size"], -side * trades["size"]]).ravel()
    portfolio = vectorbt.Portfolio.from_orders(
        prices, sizes, price=prices, init_cash=10 * rules.capital, fees=rules.commission, slippage=rules.slippage, freq="1D"
    )
    assert {1, 2, 3} <= set(trades["exit_reason"].tolist())
    assert {-1, 1} == set(side.tolist())
    compare(portfolio, outcome, metrics)
