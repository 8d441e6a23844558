"""The figures of a backtest: formulas over an equity curve and a table of trades.

Names, units and the rule of which figure may be undefined are those of `ktrdr_zmq.results`; an undefined one is None. Everything a year
long is computed from the returns of sessions (a forex or stock exchange day), however fine the bars are: per-bar returns of an hourly
strategy are neither independent nor 252 a year.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.backtest import Outcome, Rules, Sums, tally, tally_outcome
from ktrdr_zmq.results import BacktestMetrics

DAY: Final = 86_400e9
YEAR_DAYS: Final = 365.25


class Clock(NamedTuple):
    """The times of a window of bars.

    Attributes
    ----------
    opens, closes : array of int64, one a bar
        Nanoseconds since 1970, UTC.
    sessions : array of int64, one a bar
        Number of the session a bar belongs to, never falling.
    periods_per_year : float
        How many sessions make a year.
    """

    opens: Array
    closes: Array
    sessions: Array
    periods_per_year: float


def measure(outcome: Outcome, close: Array, clock: Clock, capital: float) -> BacktestMetrics:
    """All figures of a backtest.

    Parameters
    ----------
    outcome : Outcome
        Of the kernel.
    close : array of float64, one a bar
    clock : Clock
    capital : float
        Equity before the first bar.
    """
    return _figures(tally_outcome(outcome, capital, clock.opens, clock.closes, clock.sessions), close, clock, capital)


def score(
    open_: Array, high: Array, low: Array, close: Array,
    decisions: Array, rules: Rules, clock: Clock,
) -> BacktestMetrics:  # fmt: skip
    """All figures of a backtest whose trades and curves nobody wants to see: those that `simulate` and `measure` give, to the last bit.

    Parameters
    ----------
    open_, high, low, close, decisions, rules
        As for `simulate`.
    clock : Clock
    """
    sums = tally(open_, high, low, close, decisions, rules, clock.opens, clock.closes, clock.sessions)
    return _figures(sums, close, clock, rules.capital)


def _figures(made: Sums, close: Array, clock: Clock, capital: float) -> BacktestMetrics:
    sums = made.sums
    final, deepest, falls = sums["equity_final"], sums["deepest"], sums["falls"]
    days = float(clock.closes[-1] - clock.opens[0]) / DAY
    returns = returns_between(made.marks, capital)
    annual = annual_return(returns, clock.periods_per_year) if final > 0 else None
    return BacktestMetrics(
        duration_days=days,
        exposure_time=sums["bars_held"] / len(close),
        equity_final=final,
        equity_peak=sums["equity_peak"],
        total_return=final / capital - 1.0,
        buy_hold_return=float(close[-1] / close[0]) - 1.0,
        annual_return=annual,
        cagr=_power(final / capital, YEAR_DAYS / days) if final > 0 and days > 0 else None,
        annual_volatility=_defined(_deviation(returns) * math.sqrt(clock.periods_per_year)),
        sharpe_ratio=sharpe(returns, clock.periods_per_year),
        sortino_ratio=sortino(returns, clock.periods_per_year),
        calmar_ratio=annual / -deepest if annual is not None and deepest < 0 else None,
        max_drawdown=deepest,
        avg_drawdown=sums["depths"] / falls if falls else None,
        max_drawdown_days=sums["longest_fall_ns"] / DAY if falls else None,
        avg_drawdown_days=sums["fall_ns"] / falls / DAY if falls else None,
        **_trade_figures(sums),
    )


def session_returns(equity: Array, sessions: Array, capital: float) -> Array:
    """Return of each session: equity at its last bar over that of the session before, less one; the first one starts from `capital`.

    Ends where equity is no longer above 0.
    """
    return returns_between(equity[np.flatnonzero(np.append(np.diff(sessions) != 0, True))], capital)


def returns_between(marks: Array, capital: float) -> Array:
    """Returns from `capital` to the first mark, and from each to the next; ends where one is not above 0."""
    values: Array = np.append(capital, marks)
    lost = np.flatnonzero(values <= 0)
    if len(lost):
        values = values[: lost[0] + 1]
    return values[1:] / values[:-1] - 1.0


def annual_return(returns: Array, periods_per_year: float) -> float | None:
    """Growth over all returns, raised to a year's worth of them, less one."""
    return _power(float(np.prod(1.0 + returns)), periods_per_year / len(returns))


def sharpe(returns: Array, periods_per_year: float) -> float | None:
    """Sharpe ratio, annualised; risk-free rate 0, ddof 1 (Sharpe, J. Portfolio Management 21 (1994) 49)."""
    deviation = _deviation(returns)
    if not deviation > 0:
        return None
    return float(returns.mean() / deviation * math.sqrt(periods_per_year))


def sortino(returns: Array, periods_per_year: float) -> float | None:
    """Sortino ratio, annualised; target 0, downside deviation over all returns (Sortino and Price, J. Investing 3 (1994) 59)."""
    downside = float(np.sqrt(np.mean(np.square(np.minimum(returns, 0.0)))))
    if len(returns) < 2 or not downside > 0:
        return None
    return float(returns.mean() / downside * math.sqrt(periods_per_year))


def drawdown_curve(equity: Array, capital: float) -> Array:
    """Fall of equity below its highest value so far, `capital` included, as a fraction: zero or negative, one a bar."""
    return equity / np.maximum.accumulate(np.maximum(equity, capital)) - 1.0


def _trade_figures(sums: dict[str, Any]) -> dict[str, Any]:
    """What is known of the trades."""
    count, won, lost = sums["trades"], sums["won"], sums["lost"]
    profit, loss = sums["profit"], sums["loss"]
    rate = won / count if count else 0.0
    deviation = math.sqrt(sums["squares"] / (count - 1)) if count > 1 else 0.0
    return {
        "trades": count,
        "long_trades": sums["long_trades"],
        "short_trades": count - sums["long_trades"],
        "win_rate": rate if count else None,
        "best_trade": sums["best"] if count else None,
        "worst_trade": sums["worst"] if count else None,
        "avg_trade": sums["shares"] / count if count else None,
        "avg_bars_held": sums["trade_bars"] / count if count else None,
        "max_bars_held": sums["longest_trade"] if count else None,
        "profit_factor": profit / -loss if lost else None,
        "expectancy": (profit + loss) / count if count else None,
        "sqn": math.sqrt(count) * ((profit + loss) / count) / deviation if deviation > 0 else None,
        "kelly": rate - (1.0 - rate) / ((profit / won) / (-loss / lost)) if won and lost else None,
        "commission_paid": sums["commission"],
        "slippage_paid": sums["slippage"],
    }


def _deviation(values: Array) -> float:
    """Standard deviation with ddof 1; NaN for fewer than two values, exactly 0 for equal ones."""
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=1)) if np.ptp(values) > 0 else 0.0


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _power(base: float, exponent: float) -> float | None:
    """`base` to the power of `exponent`, less one; None where a float cannot hold it."""
    if base <= 0:
        return None
    try:
        return base**exponent - 1.0
    except OverflowError:
        return None
