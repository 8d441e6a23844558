"""The same account and the same four strategies once more, as backtesting.py (AGPL, for tests only) has them.

Every strategy is written twice: as decisions in an array for our kernel, and in the manner of backtesting.py, bar by bar. Where its
conventions differ from ours, the differences are computed; docs/backtesting.md lists them.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import talib
from backtesting import Strategy
from backtesting.lib import FractionalBacktest

from ktrdr_worker.trading.backtest import END_OF_DATA, Outcome, Rules
from ktrdr_worker.trading.bars import Bars

UNIT = 1e-10
"""It trades whole units; ours are fractions. With units this small the two differ by less than 1e-12 of a position."""
WHOLE = 1.0 - sys.float_info.epsilon
"""All of the money, as backtesting.py says it: a size of 1 would be one unit."""


class Account(Strategy):  # type: ignore[misc]  # has no types
    """Does with a strategy's signals what `Rules` say. Levels of stop and target count from the price of the fill, which is looked up."""

    rules: Any = None
    sizes: Any = None
    """Sizes of the trades in their order, in units of the symbol; None for those that it computes itself."""

    def init(self) -> None:
        self.opens = np.array(self.data.Open)  # all of them: an order's levels have to be known before it is filled
        self.made = 0
        self.prepare()

    def prepare(self) -> None:
        """Declare the indicators."""

    def signal(self) -> int:
        """1 to buy, -1 to sell, 0 to keep what there is."""
        raise NotImplementedError

    def next(self) -> None:
        bar, rules = len(self.data), self.rules
        if bar == len(self.opens):
            return
        side = int(np.sign(self.position.size))
        wanted = {1: 1, 0: side, -1: -1 if rules.allow_short else 0}[self.signal()]
        if wanted != side:
            if side:
                self.position.close()
            if wanted:
                self.enter(wanted, self.opens[bar] * (1 + wanted * rules.slippage))
        elif side and rules.max_holding_bars and bar - self.trades[0].entry_bar >= rules.max_holding_bars:
            self.position.close()

    def enter(self, side: int, price: float) -> None:
        size = min(self.rules.fraction, WHOLE) if self.sizes is None else round(self.sizes[self.made] / UNIT)
        self.made += 1
        order = self.buy(size=size) if side > 0 else self.sell(size=size)
        if self.rules.stop_loss:  # set on the order, because buy() wants levels around the last close and not around the fill
            order._replace(sl_price=price * (1 - side * self.rules.stop_loss))
        if self.rules.take_profit:
            order._replace(tp_price=price * (1 + side * self.rules.take_profit))


class Cross(Account):
    """A fast average above or below a slow one."""

    def prepare(self) -> None:
        self.fast = self.I(lambda x: pd.Series(x).rolling(10).mean().to_numpy(), self.data.Close)
        self.slow = self.I(lambda x: pd.Series(x).rolling(30).mean().to_numpy(), self.data.Close)

    def signal(self) -> int:
        return 1 if self.fast[-1] > self.slow[-1] else -1 if self.fast[-1] < self.slow[-1] else 0


class Reversion(Account):
    """Against what has gone too far, by the relative strength index."""

    def prepare(self) -> None:
        self.rsi = self.I(talib.RSI, np.array(self.data.Close) / UNIT, 14)

    def signal(self) -> int:
        return 1 if self.rsi[-1] < 35 else -1 if self.rsi[-1] > 65 else 0


class Breakout(Account):
    """With a close beyond the highest or lowest price of the twenty bars before."""

    def prepare(self) -> None:
        self.top = self.I(lambda x: pd.Series(x).rolling(20).max().shift().to_numpy(), self.data.High)
        self.bottom = self.I(lambda x: pd.Series(x).rolling(20).min().shift().to_numpy(), self.data.Low)

    def signal(self) -> int:
        close = self.data.Close[-1]
        return 1 if close > self.top[-1] else -1 if close < self.bottom[-1] else 0


def tossed(count: int) -> np.ndarray:
    """Signals by chance, always the same."""
    return np.random.default_rng(11).choice(np.array([-1, 0, 1]), count, p=[0.05, 0.9, 0.05])


class Chance(Account):
    """Signals that know nothing."""

    def prepare(self) -> None:
        self.toss = tossed(len(self.opens))

    def signal(self) -> int:
        return int(self.toss[len(self.data) - 1])


STRATEGIES: dict[str, type[Account]] = {"cross": Cross, "reversion": Reversion, "breakout": Breakout, "chance": Chance}


def decisions(name: str, bars: Bars) -> np.ndarray:
    """The same strategies as an array for our kernel, without look-ahead by construction of the indicators."""
    close = bars.close
    if name == "cross":
        edge, first = _average(close, 10) - _average(close, 30), 29
    elif name == "reversion":
        rsi, first = talib.RSI(close, 14), 14
        edge = np.where(rsi < 35, 1, np.where(rsi > 65, -1, 0))
    elif name == "breakout":
        window = np.lib.stride_tricks.sliding_window_view
        top, bottom = np.full(len(close), np.inf), np.full(len(close), -np.inf)
        top[20:], bottom[20:] = window(bars.high, 20).max(axis=1)[:-1], window(bars.low, 20).min(axis=1)[:-1]
        edge, first = np.where(close > top, 1, np.where(close < bottom, -1, 0)), 20
    else:
        edge, first = tossed(len(close)), 0
    made = np.sign(np.nan_to_num(edge)).astype(np.int8)
    made[: first + 1] = 0  # it passes over the first bar on which the indicators have values
    return made


def _average(values: np.ndarray, length: int) -> np.ndarray:
    return pd.Series(values).rolling(length).mean().to_numpy()


class Refereed(NamedTuple):
    """What backtesting.py found: its figures, its trades, its equity at each close."""

    stats: Any
    trades: pd.DataFrame
    equity: np.ndarray


def refereed(name: str, bars: Bars, rules: Rules, sizes: np.ndarray | None = None) -> Refereed:
    """Run it. Times are those of the bars' closes, so that its drawdowns last as long as ours."""
    index = pd.DatetimeIndex(bars.closes.astype("datetime64[ns]"))
    columns = {"Open": bars.open, "High": bars.high, "Low": bars.low, "Close": bars.close, "Volume": bars.volume}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of its own, of pandas and of its progress bar
        test = FractionalBacktest(
            pd.DataFrame(columns, index=index), STRATEGIES[name], fractional_unit=UNIT, cash=rules.capital, spread=rules.slippage,
            commission=rules.commission, margin=1.0 if sizes is None else 0.05, finalize_trades=True,
        )  # fmt: skip
        stats = test.run(rules=rules, sizes=sizes)
    return Refereed(stats, stats["_trades"], stats["_equity_curve"]["Equity"].to_numpy())


class Row(NamedTuple):
    """A trade as both have it."""

    entry_bar: int
    exit_bar: int
    size: float
    entry_price: float
    exit_price: float
    pnl: float


def our_rows(outcome: Outcome) -> list[Row]:
    """Our trades; short ones have negative sizes there."""
    names = ("entry_price", "exit_price", "pnl")
    return [
        Row(int(t["entry_bar"]), int(t["exit_bar"]), float(t["side"] * t["size"]), *(float(t[name]) for name in names))
        for t in outcome.trades
    ]


def their_rows(found: Refereed, outcome: Outcome, bars: Bars, rules: Rules) -> list[Row]:
    """Their trades with our two conventions for exits, computed from theirs.

    What is open at the end: they close it at the open of the last bar, we at its close. Slippage: their spread is paid at the entry only,
    ours on both legs. Another exit price moves the PnL by the difference times the size, and by the commission on it.
    """
    rows = []
    for place, trade in enumerate(found.trades.itertuples()):
        size, side = float(trade.Size), np.sign(trade.Size)
        price = float(trade.ExitPrice)
        if place == len(outcome.trades) - 1 and outcome.trades[-1]["exit_reason"] == END_OF_DATA:
            price = float(bars.close[-1])
        price *= 1 - side * rules.slippage
        moved = price - float(trade.ExitPrice)
        pnl = float(trade.PnL) + size * moved - rules.commission * abs(size) * moved
        rows.append(Row(int(trade.EntryBar), int(trade.ExitBar), size, float(trade.EntryPrice), price, pnl))
    return rows
