"""The figures of a backtest: by hand, and against empyrical."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr_worker.trading.backtest import Outcome, Rules, simulate
from ktrdr_worker.trading.performance import DAY, Clock, drawdown_curve, measure, score, session_returns
from ktrdr_zmq.results import BACKTEST_METRICS, BacktestMetrics
from tests.unit.trading.made import START, walk
from tests.unit.trading.test_backtest import cases

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


def slow_figures(outcome: Outcome, close: np.ndarray, clock: Clock, capital: float) -> dict[str, float | None]:
    """The figures that are made of trades and of falls, from their definitions, added up without rounding."""
    trades, equity = outcome.trades.tolist(), outcome.equity.tolist()
    pnl = [row[6] for row in trades]
    share = [row[6] / (row[3] * row[4]) for row in trades]
    won, lost = [x for x in pnl if x > 0], [x for x in pnl if x < 0]
    count, mean = len(pnl), math.fsum(pnl) / (len(pnl) or 1)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in pnl) / (count - 1)) if count > 1 and len(set(pnl)) > 1 else 0.0
    times = [clock.opens[0], *clock.closes]
    falls, begin = [], None
    for bar, value in enumerate(equity):
        peak = max([capital, *equity[:bar]])
        if value < peak and begin is None:
            begin = bar
        if begin is not None and (value >= peak or bar == len(equity) - 1):
            falls.append((min(equity[begin : bar + 1]) / max([capital, *equity[:begin]]) - 1, (times[bar + 1] - times[begin]) / DAY))
            begin = None
    rate = len(won) / (count or 1)
    return {
        "exposure_time": sum(outcome.held.tolist()) / len(equity), "equity_peak": max([capital, *equity]), "equity_final": equity[-1],
        "trades": count, "long_trades": sum(row[2] > 0 for row in trades), "short_trades": sum(row[2] < 0 for row in trades),
        "win_rate": rate if count else None, "best_trade": max(share, default=None), "worst_trade": min(share, default=None),
        "avg_trade": math.fsum(share) / count if count else None, "expectancy": mean if count else None,
        "avg_bars_held": sum(row[11] for row in trades) / count if count else None,
        "max_bars_held": max((row[11] for row in trades), default=None),
        "profit_factor": math.fsum(won) / -math.fsum(lost) if lost else None,
        "sqn": math.sqrt(count) * mean / deviation if deviation else None,
        "kelly": rate - (1 - rate) / ((math.fsum(won) / len(won)) / (-math.fsum(lost) / len(lost))) if won and lost else None,
        "commission_paid": math.fsum(row[7] for row in trades), "slippage_paid": math.fsum(row[8] for row in trades),
        "max_drawdown": min((depth for depth, _ in falls), default=0.0),
        "avg_drawdown": math.fsum(depth for depth, _ in falls) / len(falls) if falls else None,
        "max_drawdown_days": max((days for _, days in falls), default=None),
        "avg_drawdown_days": math.fsum(days for _, days in falls) / len(falls) if falls else None,
    }  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([0.002, 0.05, 0.4]), st.integers(1, 5))
def test_a_score_is_what_simulating_and_measuring_give_to_the_last_bit(
    case: tuple[int, int, list[int], Rules], volatility: float, bars_a_session: int
) -> None:
    seed, count, decisions, rules = case
    bars = walk(count, seed, volatility=volatility)
    clock = Clock(bars.opens, bars.closes, np.arange(count) // bars_a_session, 252)
    columns = (bars.open, bars.high, bars.low, bars.close, np.array(decisions, dtype=np.int8))
    outcome = simulate(*columns, rules)
    metrics = measure(outcome, bars.close, clock, rules.capital)
    assert score(*columns, rules, clock) == metrics
    for name, value in slow_figures(outcome, bars.close, clock, rules.capital).items():
        assert metrics[name] == (None if value is None else pytest.approx(value, rel=1e-9, abs=1e-9 * rules.capital)), name


def test_times_that_do_not_fit_are_refused() -> None:
    one = np.ones(3)
    with pytest.raises(ValueError, match="as many times as bars"):
        score(one, one, one, one, np.zeros(3, dtype=np.int8), Rules(1.0), daily(2))


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
