"""The figures of a backtest: by hand, and against empyrical."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr_worker.trading.backtest import Outcome, Rules, simulate
from ktrdr_worker.trading.performance import DAY, Clock, drawdown_curve, measure, session_returns
from ktrdr_zmq.results import BACKTEST_METRICS, BacktestMetrics
from tests.unit.trading.made import START, walk

pytestmark = pytest.mark.timeout(120)


def daily(count: int) -> Clock:
    opens = START + np.arange(count, dtype=np.int64) * int(DAY)
    return Clock(opens, opens + int(DAY), np.arange(count), 252)


def traded(seed: int = 1, count: int = 300, **rules: object) -> tuple[Outcome, BacktestMetrics]:
    bars = walk(count, seed, symbol="SP500", timeframe="1d", volatility=0.01)
    decisions = np.random.default_rng(seed).choice(np.array([-1, 0, 0, 0, 1], dtype=np.int8), count)
    outcome = simulate(bars.open, bars.high, bars.low, bars.close, decisions, Rules(1000.0, commission=0.0005, slippage=0.0005, **rules))  # type: ignore[arg-type]
    return outcome, measure(outcome, bars.close, daily(count), 1000.0)


def of(equity: list[float], capital: float = 100.0) -> BacktestMetrics:
    empty = simulate(*(np.ones(len(equity)),) * 4, np.zeros(len(equity), dtype=np.int8), Rules(capital))
    return measure(empty._replace(equity=np.array(equity)), np.ones(len(equity)), daily(len(equity)), capital)


def test_every_figure_of_the_schema_is_there_and_finite_or_none() -> None:
    _, metrics = traded()
    assert list(metrics) == list(BACKTEST_METRICS)
    for name, value in metrics.items():
        assert value is None or math.isfinite(value), name
        if value is None:
            assert BACKTEST_METRICS[name].undefined, name


def test_what_is_undefined_is_none() -> None:
    metrics = of([100.0, 100.0, 100.0])
    undefined = {name for name, value in metrics.items() if value is None}
    assert undefined == {name for name, metric in BACKTEST_METRICS.items() if metric.undefined} - {
        "annual_return",
        "cagr",
        "annual_volatility",
    }
    assert of([110.0]).annual_volatility is None
    assert of([50.0, 0.0]).annual_return is None
    assert of([50.0, -10.0]).cagr is None


def test_drawdowns_by_hand() -> None:
    metrics = of([110.0, 99.0, 104.5, 110.0, 121.0, 60.5, 90.75])
    assert metrics.max_drawdown == pytest.approx(-0.5)
    assert metrics.avg_drawdown == pytest.approx((-0.1 - 0.5) / 2)
    assert metrics.max_drawdown_days == pytest.approx(3.0)  # from the close of the first bar to its recovery at the fourth
    assert metrics.avg_drawdown_days == pytest.approx(2.5)
    assert metrics.equity_peak == 121.0
    assert drawdown_curve(np.array([90.0]), 100.0).tolist() == [pytest.approx(-0.1)]


def test_returns_are_those_of_sessions() -> None:
    equity = np.array([101.0, 102.0, 103.0, 104.0])
    returns = session_returns(equity, np.array([7, 7, 8, 8]), 100.0)
    assert returns.tolist() == [pytest.approx(0.02), pytest.approx(104 / 102 - 1)]


def test_trade_figures_by_hand() -> None:
    outcome, metrics = traded(seed=3)
    pnl = outcome.trades["pnl"]
    wins, losses = pnl[pnl > 0], pnl[pnl <= 0]
    assert metrics.trades == len(pnl) > 20
    assert metrics.long_trades + metrics.short_trades == metrics.trades
    assert metrics.win_rate == pytest.approx(len(wins) / len(pnl))
    assert metrics.profit_factor == pytest.approx(wins.sum() / -losses.sum())
    assert metrics.expectancy == pytest.approx(pnl.mean())
    assert metrics.sqn == pytest.approx(math.sqrt(len(pnl)) * pnl.mean() / pnl.std(ddof=1))
    assert metrics.kelly == pytest.approx(metrics.win_rate - (1 - metrics.win_rate) / (wins.mean() / -losses.mean()))
    assert metrics.equity_final == pytest.approx(1000 + pnl.sum())
    assert metrics.exposure_time == pytest.approx(outcome.held.mean())


@pytest.mark.oracle
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_figures_against_empyrical(seed: int) -> None:
    empyrical = pytest.importorskip("empyrical")
    outcome, metrics = traded(seed)
    returns = session_returns(outcome.equity, np.arange(len(outcome.equity)), 1000.0)
    assert metrics.annual_return == pytest.approx(empyrical.annual_return(returns), rel=1e-9)
    assert metrics.annual_volatility == pytest.approx(empyrical.annual_volatility(returns), rel=1e-9)
    assert metrics.sharpe_ratio == pytest.approx(empyrical.sharpe_ratio(returns), rel=1e-9)
    assert metrics.sortino_ratio == pytest.approx(empyrical.sortino_ratio(returns), rel=1e-9)
    assert metrics.max_drawdown == pytest.approx(empyrical.max_drawdown(returns), rel=1e-9)
    assert metrics.calmar_ratio == pytest.approx(empyrical.calmar_ratio(returns), rel=1e-9)
