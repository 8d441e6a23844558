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
from ktrdr_worker.trading.backtest import Outcome
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
    equity = outcome.equity
    final = float(equity[-1])
    days = float(clock.closes[-1] - clock.opens[0]) / DAY
    falls = drawdowns(equity, clock, capital)
    depth = float(drawdown_curve(equity, capital).min())
    returns = session_returns(equity, clock.sessions, capital)
    annual = annual_return(returns, clock.periods_per_year) if final > 0 else None
    return BacktestMetrics(
        duration_days=days,
        exposure_time=float(outcome.held.mean()),
        equity_final=final,
        equity_peak=max(capital, float(equity.max())),
        total_return=final / capital - 1.0,
        buy_hold_return=float(close[-1] / close[0]) - 1.0,
        annual_return=annual,
        cagr=_power(final / capital, YEAR_DAYS / days) if final > 0 and days > 0 else None,
        annual_volatility=_defined(_deviation(returns) * math.sqrt(clock.periods_per_year)),
        sharpe_ratio=sharpe(returns, clock.periods_per_year),
        sortino_ratio=sortino(returns, clock.periods_per_year),
        calmar_ratio=annual / -depth if annual is not None and depth < 0 else None,
        max_drawdown=depth,
        avg_drawdown=float(np.mean([fall.depth for fall in falls])) if falls else None,
        max_drawdown_days=max(fall.days for fall in falls) if falls else None,
        avg_drawdown_days=float(np.mean([fall.days for fall in falls])) if falls else None,
        **_trade_figures(outcome.trades),
    )


def session_returns(equity: Array, sessions: Array, capital: float) -> Array:
    """Return of each session: equity at its last bar over that of the session before, less one; the first one starts from `capital`.

    Ends where equity is no longer above 0.
    """
    last = np.flatnonzero(np.append(np.diff(sessions) != 0, True))
    values: Array = np.append(capital, equity[last])
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


class Fall(NamedTuple):
    """A drawdown: how deep (negative fraction), and how many calendar days from its peak to its recovery or the end."""

    depth: float
    days: float


def drawdowns(equity: Array, clock: Clock, capital: float) -> list[Fall]:
    """Every drawdown, in the order of time. A peak in the starting capital counts from the open of the first bar."""
    curve = drawdown_curve(equity, capital)
    times: Array = np.append(clock.opens[0], clock.closes)  # times[i] is the close of bar i - 1
    under = np.flatnonzero(np.diff(np.concatenate(([0], (curve < 0).astype(np.int8), [0]))))
    falls = []
    for begin, end in zip(under[::2], under[1::2], strict=True):  # bars begin to end - 1 are below the peak
        recovered = min(end + 1, len(times) - 1)
        falls.append(Fall(float(curve[begin:end].min()), float(times[recovered] - times[begin]) / DAY))
    return falls


def _trade_figures(trades: Array) -> dict[str, Any]:
    count = len(trades)
    pnl = trades["pnl"]
    share = pnl / (trades["size"] * trades["entry_price"])
    wins, losses = pnl[pnl > 0], pnl[pnl < 0]
    deviation = _deviation(pnl)
    won = len(wins) / count if count else 0.0
    return {
        "trades": count,
        "long_trades": int((trades["side"] > 0).sum()),
        "short_trades": int((trades["side"] < 0).sum()),
        "win_rate": won if count else None,
        "best_trade": float(share.max()) if count else None,
        "worst_trade": float(share.min()) if count else None,
        "avg_trade": float(share.mean()) if count else None,
        "avg_bars_held": float(trades["bars_held"].mean()) if count else None,
        "max_bars_held": int(trades["bars_held"].max()) if count else None,
        "profit_factor": float(wins.sum() / -losses.sum()) if len(losses) else None,
        "expectancy": float(pnl.mean()) if count else None,
        "sqn": float(math.sqrt(count) * pnl.mean() / deviation) if deviation > 0 else None,
        "kelly": float(won - (1.0 - won) / (wins.mean() / -losses.mean())) if len(wins) and len(losses) else None,
        "commission_paid": float(trades["commission"].sum()),
        "slippage_paid": float(trades["slippage"].sum()),
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
