"""Trade for trade what backtesting.py does, and its figures; every difference of convention is computed, none hidden in a tolerance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("backtesting")

from ktrdr_worker.trading.backtest import Outcome, Rules, simulate
from ktrdr_worker.trading.bars import Bars, load, periods_per_year
from ktrdr_worker.trading.performance import DAY, Clock, measure
from ktrdr_zmq.results import BacktestMetrics
from ktrdr_zmq.samples import find_sample
from ktrdr_zmq.strategy.symbols import classify
from tests.oracles.referee import STRATEGIES, Refereed, decisions, our_rows, refereed, their_rows

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(180)]

SAMPLES = (("EURUSD", "1h"), ("SP500", "1d"))
BRACKETS: dict[str, dict[str, Any]] = {
    "EURUSD": {"stop_loss": 0.002, "take_profit": 0.003},
    "SP500": {"stop_loss": 0.02, "take_profit": 0.03},
}
"""Near enough that most bars that touch one of them do, and some touch both; some gaps lead beyond."""

CLOSE = 1e-9
"""Relative; what whole units of 1e-10 and the order of additions leave."""


@pytest.fixture(scope="module", params=SAMPLES, ids=lambda sample: sample[0])
def bars(request: pytest.FixtureRequest) -> Bars:
    symbol, timeframe = request.param
    sample = find_sample(symbol, timeframe)
    assert sample is not None
    return load(sample.path, sample.path.name, symbol, timeframe, timeframe).bars


def rules_of(bars: Bars, brackets: bool, **rules: Any) -> Rules:
    return Rules(1e5, **{**(BRACKETS[bars.symbol] if brackets else {}), **rules})


def ours(name: str, bars: Bars, rules: Rules) -> Outcome:
    return simulate(bars.open, bars.high, bars.low, bars.close, decisions(name, bars), rules)


def check(outcome: Outcome, found: Refereed, bars: Bars, rules: Rules) -> None:
    """Compare all trades, and the equity at every close but the last one, which lies before costs that differ."""
    mine, theirs = our_rows(outcome), their_rows(found, outcome, bars, rules)
    assert len(mine) == len(theirs) > 25
    for one, other in zip(mine, theirs, strict=True):
        assert one[:2] == other[:2]
        assert one[2:5] == pytest.approx(other[2:5], rel=CLOSE)
        assert one.pnl == pytest.approx(other.pnl, rel=CLOSE, abs=CLOSE * abs(one.size) * one.entry_price)


@pytest.mark.parametrize("allow_short", [True, False], ids=["both-sides", "long-only"])
@pytest.mark.parametrize("brackets", [False, True], ids=["open-ended", "brackets"])
@pytest.mark.parametrize("commission", [0.0, 0.0005], ids=["free", "commission"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_trade_is_the_same(name: str, bars: Bars, commission: float, brackets: bool, allow_short: bool) -> None:
    """Both compute their sizes themselves, from what all trades before have left."""
    rules = rules_of(bars, brackets, commission=commission, allow_short=allow_short, fraction=0.9)
    outcome, found = ours(name, bars, rules), refereed(name, bars, rules)
    check(outcome, found, bars, rules)
    assert set(outcome.trades["side"]) == ({1, -1} if allow_short else {1})
    assert outcome.equity[:-1] == pytest.approx(found.equity[:-1], rel=CLOSE)
    if brackets:
        assert {1, 2} <= set(outcome.trades["exit_reason"].tolist()), "stops and targets, or nothing would be shown"
        assert (outcome.trades["entry_bar"] == outcome.trades["exit_bar"]).any(), "some within the bar of their entry"


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_trade_is_the_same_with_slippage_and_a_limit_of_bars(name: str, bars: Bars) -> None:
    """With sizes that are given: theirs would buy for the commission of the price without the spread, ours for that of the fill."""
    rules = rules_of(bars, True, commission=0.0002, slippage=0.0003, max_holding_bars=12, fraction=0.5)
    outcome = ours(name, bars, rules)
    check(outcome, refereed(name, bars, rules, outcome.trades["size"]), bars, rules)
    assert 3 in outcome.trades["exit_reason"]


def test_the_size_with_slippage_differs_as_it_is_said(bars: Bars) -> None:
    """What their sizing gives, computed from our first trade."""
    rules = rules_of(bars, False, commission=0.001, slippage=0.002)
    first, their = ours("cross", bars, rules).trades[0], refereed("cross", bars, rules).trades.iloc[0]
    raw = first["entry_price"] / (1 + first["side"] * rules.slippage)
    spent = first["size"] * first["entry_price"] * (1 + rules.commission)
    assert spent == pytest.approx(rules.capital, rel=1e-12)
    assert abs(their.Size) == pytest.approx(spent / (first["entry_price"] + rules.commission * raw), rel=CLOSE)
    assert abs(their.Size) != pytest.approx(first["size"], rel=CLOSE)


# ---------------------------------------------------------------- figures


def ended(bars: Bars) -> Bars:
    """The bars and one that does not move: its open, at which they close what is open, is the last close, at which we do."""
    step = bars.closes[-1] - bars.opens[-1]
    still = np.full(1, bars.close[-1])
    return Bars(
        bars.symbol, bars.timeframe, np.append(bars.opens, bars.closes[-1]), np.append(bars.closes, bars.closes[-1] + step),
        *(np.append(column, still) for column in (bars.open, bars.high, bars.low, bars.close)), np.append(bars.volume, 1.0),
        np.append(bars.sessions, bars.sessions[-1] + 1),
    )  # fmt: skip


class Both:
    """One backtest by both, whose figures are compared."""

    def __init__(self, name: str, bars: Bars) -> None:
        self.bars = ended(bars)
        self.rules = rules_of(bars, True, commission=0.0001, fraction=0.9)
        self.outcome = ours(name, self.bars, self.rules)
        self.year = periods_per_year(bars.timeframe, classify(bars.symbol))
        clock = Clock(self.bars.opens, self.bars.closes, self.bars.sessions, self.year)
        self.mine: BacktestMetrics = measure(self.outcome, self.bars.close, clock, self.rules.capital)
        self.found = refereed(name, self.bars, self.rules)
        self.stats = self.found.stats


@pytest.fixture(scope="module", params=list(STRATEGIES))
def both(request: pytest.FixtureRequest, bars: Bars) -> Both:
    return Both(request.param, bars)


def test_figures_that_are_the_same(both: Both) -> None:
    mine, stats = both.mine, both.stats
    pairs = {
        "equity_final": stats["Equity Final [$]"],
        "equity_peak": stats["Equity Peak [$]"],
        "total_return": stats["Return [%]"] / 100,
        "max_drawdown": stats["Max. Drawdown [%]"] / 100,
        "trades": stats["# Trades"],
        "win_rate": stats["Win Rate [%]"] / 100,
        "best_trade": stats["Best Trade [%]"] / 100,
        "worst_trade": stats["Worst Trade [%]"] / 100,
        "avg_trade": stats["Expectancy [%]"] / 100,  # their expectancy is a mean of fractions, ours of money
        "sqn": stats["SQN"],
        "kelly": stats["Kelly Criterion"],
        "commission_paid": stats["Commissions [$]"],
    }
    for name, value in pairs.items():
        assert mine[name] == pytest.approx(value, rel=1e-8, abs=1e-9), name


def test_exposure(both: Both) -> None:
    """They count the bar of every exit; we do not where the position was closed at its open and no other was opened."""
    trades, count = both.found.trades, len(both.bars.opens)
    theirs, mine = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    for trade, reason in zip(trades.itertuples(), both.outcome.trades["exit_reason"], strict=True):
        theirs[trade.EntryBar : trade.ExitBar + 1] = True
        mine[trade.EntryBar : trade.ExitBar + (reason not in (0, 3))] = True
    assert both.stats["Exposure Time [%]"] == pytest.approx(100 * theirs.mean(), rel=1e-12)
    assert both.mine.exposure_time == mine.mean() <= theirs.mean()


def test_drawdowns(both: Both) -> None:
    """The same peaks, recoveries and lengths; but they leave out a drawdown that begins in the last bar."""
    lengths = both.stats["_equity_curve"]["DrawdownDuration"].dropna()
    days = (lengths.dt.total_seconds() / 86_400).tolist()
    equity = np.append(both.rules.capital, both.outcome.equity)
    left_out = equity[-1] < equity[:-1].max() == equity[-2]
    depth, length = (equity[-1] / equity[-2] - 1, (both.bars.closes[-1] - both.bars.closes[-2]) / DAY) if left_out else (0.0, 0.0)
    count = len(days) + left_out
    assert both.mine.max_drawdown_days == pytest.approx(max([*days, length]), rel=1e-12)
    assert both.mine.avg_drawdown_days == pytest.approx((sum(days) + length) / count, rel=1e-12)
    shallow = both.stats["Avg. Drawdown [%]"] / 100 * len(days)
    assert both.mine.avg_drawdown == pytest.approx((shallow + depth) / count, rel=1e-8)


def test_the_profit_factor_is_one_of_money_and_theirs_one_of_fractions(both: Both) -> None:
    trades = both.outcome.trades
    share = trades["pnl"] / (trades["size"] * trades["entry_price"])
    assert both.stats["Profit Factor"] == pytest.approx(share[share > 0].sum() / -share[share < 0].sum(), rel=1e-8)
    money = both.found.trades["PnL"]
    assert both.mine.profit_factor == pytest.approx(money[money > 0].sum() / -money[money < 0].sum(), rel=1e-8)
    assert both.mine.expectancy == pytest.approx(money.mean(), rel=1e-7, abs=1e-7)


def test_the_average_trade_is_a_mean_and_theirs_a_geometric_one(both: Both) -> None:
    trades = both.outcome.trades
    share = trades["pnl"] / (trades["size"] * trades["entry_price"])
    assert both.stats["Avg. Trade [%]"] / 100 == pytest.approx(math.expm1(np.log1p(share).mean()), rel=1e-7, abs=1e-10)


def test_figures_of_a_year(both: Both) -> None:
    """Theirs from ours: calendar days (UTC) without the first one, geometric means, a volatility that compounds.

    A year has 252 days, but 365 where enough of the times are those of a weekend, as the closes of daily bars are.
    """
    stats, equity, closes = both.stats, both.outcome.equity, both.bars.closes
    days = closes // int(DAY)
    year = 365 if np.isin((days + 3) % 7, (5, 6)).mean() > 2 / 7 * 0.6 else 252
    last = equity[np.append(np.diff(days) != 0, True)]
    returns = last[1:] / last[:-1] - 1
    growth = math.exp(np.log1p(returns).mean())
    annual = growth**year - 1
    deviation = math.sqrt((returns.var(ddof=1) + growth**2) ** year - growth ** (2 * year))
    downside = math.sqrt(np.mean(np.minimum(returns, 0.0) ** 2)) * math.sqrt(year)
    assert stats["Return (Ann.) [%]"] / 100 == pytest.approx(annual, rel=1e-8)
    assert stats["Volatility (Ann.) [%]"] / 100 == pytest.approx(deviation, rel=1e-7)
    assert stats["Sharpe Ratio"] == pytest.approx(annual / deviation, rel=1e-7)
    assert stats["Sortino Ratio"] == pytest.approx(annual / downside, rel=1e-7)
    assert stats["Calmar Ratio"] == pytest.approx(annual / -both.mine.max_drawdown, rel=1e-7)
    years = (closes[-1] - closes[0]) / DAY / 365.25
    assert stats["CAGR [%]"] / 100 == pytest.approx((equity[-1] / both.rules.capital) ** (1 / years) - 1, rel=1e-8)
    assert both.mine.cagr == pytest.approx((equity[-1] / both.rules.capital) ** (365.25 / both.mine.duration_days) - 1, rel=1e-12)
