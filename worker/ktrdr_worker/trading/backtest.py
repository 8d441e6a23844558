"""The backtest kernel: decisions and bars in, trades and an equity curve out. Compiled; knows neither strategies nor dates.

A decision is made at the close of a bar and filled at the open of the next one, so that the last bar's decision is never filled. One
position at a time. Stop and target are looked for inside each bar, the entry bar included: an open beyond a level fills at the open, and
where one bar touches both, the stop counts. Slippage moves every fill against the trader, commission is taken on both legs, and both are
part of a trade's PnL: the sum of PnL is the change of equity. What is open at the end is closed at the last close.

`tests/unit/trading/twin.py` is the same in plain Python; the two agree to the last bit.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit

from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.results import EXIT_REASONS

SIGNAL, STOP_LOSS, TAKE_PROFIT, MAX_HOLDING, RUIN, END_OF_DATA = range(len(EXIT_REASONS))
SELL, HOLD, BUY = -1, 0, 1
"""Decisions. HOLD keeps what there is; SELL goes short, or flat where shorts are not allowed."""

TRADE_DTYPE: Final = np.dtype([
    ("entry_bar", "i8"), ("exit_bar", "i8"), ("side", "i8"), ("size", "f8"), ("entry_price", "f8"), ("exit_price", "f8"), ("pnl", "f8"),
    ("commission", "f8"), ("slippage", "f8"), ("mae", "f8"), ("mfe", "f8"), ("bars_held", "i8"), ("exit_reason", "i8"),
])  # fmt: skip
"""A trade: `mae` and `mfe` are worst and best move as fractions of the entry price, in favour of the side positive."""


class Rules(NamedTuple):
    """What the account does with decisions.

    Attributes
    ----------
    capital : float
        Equity before the first bar, above 0.
    fraction : float
        Share of equity that a new position costs, its entry commission included; above 0, at most 1.
    commission, slippage : float
        Fractions of the value of a leg, and of its price.
    allow_short : bool
        Whether SELL opens a short position.
    stop_loss, take_profit : float
        Distances from the entry price as fractions of it; 0 is none.
    max_holding_bars : int
        A position that has been open for so many bars is closed at the next open; 0 is no limit.
    """

    capital: float
    fraction: float = 1.0
    commission: float = 0.0
    slippage: float = 0.0
    allow_short: bool = True
    stop_loss: float = 0.0
    take_profit: float = 0.0
    max_holding_bars: int = 0


class Outcome(NamedTuple):
    """What the kernel returns.

    Attributes
    ----------
    trades : array of TRADE_DTYPE
        In the order of their exits.
    equity : array of float64, one a bar
        At the bar's close, an open position valued there without exit costs.
    position : array of float64, one a bar
        Units held at the bar's close; negative is short.
    held : array of bool, one a bar
        Whether a position was open at any time in the bar.
    """

    trades: Array
    equity: Array
    position: Array
    held: Array


def simulate(
    open_: Array, high: Array, low: Array, close: Array,
    decisions: Array, rules: Rules,
) -> Outcome:  # fmt: skip
    """Trade a window of bars.

    Parameters
    ----------
    open_, high, low, close : array of float64, shape (n,)
        Prices above 0; n is at least 1.
    decisions : array of int8, shape (n,)
        SELL, HOLD or BUY at each bar's close.
    rules : Rules

    Returns
    -------
    Outcome
    """
    arrays = [np.ascontiguousarray(a, dtype=np.float64) for a in (open_, high, low, close)]
    count = len(arrays[3])
    if count == 0 or any(len(a) != count for a in (*arrays, decisions)):
        raise ValueError("prices and decisions must be of one length, and there must be a bar")
    trades: Array = np.empty(count + 1, dtype=TRADE_DTYPE)  # a bar ends two trades at most, and then begins only one: never more than n + 1
    equity, position = np.empty(count), np.zeros(count)
    held: Array = np.zeros(count, dtype=np.bool_)
    found = _kernel(
        *arrays, np.ascontiguousarray(decisions, dtype=np.int8), float(rules.capital), float(rules.fraction), float(rules.commission),
        float(rules.slippage), bool(rules.allow_short), float(rules.stop_loss), float(rules.take_profit), int(rules.max_holding_bars),
        trades, equity, position, held,
    )  # fmt: skip
    return Outcome(trades[:found].copy(), equity, position, held)


@njit(cache=True, nogil=True)
def _close(trade, bar, raw_price, reason, bars_held, commission, slippage):  # type: ignore[no-untyped-def]
    """Fill the exit of `trade` at `raw_price` less slippage; return its PnL."""
    side, size = trade.side, trade.size
    price = raw_price * (1.0 - side * slippage)
    leg = commission * size * price
    move = side * (raw_price / trade.entry_price - 1.0)
    trade.mae = min(trade.mae, move)
    trade.mfe = max(trade.mfe, move)
    trade.exit_bar = bar
    trade.exit_price = price
    trade.slippage += size * raw_price * slippage
    trade.pnl = side * size * (price - trade.entry_price) - trade.commission - leg
    trade.commission += leg
    trade.bars_held = bars_held
    trade.exit_reason = reason
    return trade.pnl


@njit(cache=True, nogil=True)
def _open(trade, bar, raw_price, side, money, commission, slippage):  # type: ignore[no-untyped-def]
    """Fill an entry with `money`, the commission of this leg included."""
    price = raw_price * (1.0 + side * slippage)
    size = money / (price * (1.0 + commission))
    trade.entry_bar = bar
    trade.side = side
    trade.size = size
    trade.entry_price = price
    trade.commission = commission * size * price
    trade.slippage = size * raw_price * slippage
    trade.mae = 0.0
    trade.mfe = 0.0


@njit(cache=True, nogil=True)
def _inside(trade, open_, high, low, stop_loss, take_profit):  # type: ignore[no-untyped-def]
    """Look for stop and target inside a bar; return the price of the exit (0: none) and its reason."""
    side, entry = trade.side, trade.entry_price
    if stop_loss > 0.0:
        level = entry * (1.0 - side * stop_loss)
        worst = low if side > 0 else high
        if side * (worst - level) <= 0.0:
            return (open_ if side * (open_ - level) <= 0.0 else level), STOP_LOSS
    if take_profit > 0.0:
        level = entry * (1.0 + side * take_profit)
        best = high if side > 0 else low
        if side * (best - level) >= 0.0:
            return (open_ if side * (open_ - level) >= 0.0 else level), TAKE_PROFIT
    return 0.0, SIGNAL


@njit(cache=True, nogil=True)
def _kernel(  # type: ignore[no-untyped-def]
    open_, high, low, close, decisions, capital, fraction, commission, slippage, allow_short, stop_loss, take_profit, max_holding,
    trades, equity, position, held,
):  # fmt: skip
    count = len(close)
    done = 0  # closed trades; trades[done] is the open one, if any
    side = 0
    cash = capital  # equity without the open position's result
    ruined = False
    for bar in range(count):
        if bar > 0 and not ruined:
            wanted = side
            if decisions[bar - 1] > 0:
                wanted = 1
            elif decisions[bar - 1] < 0:
                wanted = -1 if allow_short else 0
            turn = wanted != side
            age = bar - trades[done].entry_bar if side != 0 else 0
            if side != 0 and (turn or (max_holding > 0 and age >= max_holding)):
                reason = SIGNAL if turn else MAX_HOLDING
                cash += _close(trades[done], bar, open_[bar], reason, age, commission, slippage)
                done += 1
                side = 0
            if turn and wanted != 0 and cash > 0.0:
                _open(trades[done], bar, open_[bar], wanted, cash * fraction, commission, slippage)
                side = wanted
        if side != 0:
            held[bar] = True
            age = bar - trades[done].entry_bar + 1
            price, reason = _inside(trades[done], open_[bar], high[bar], low[bar], stop_loss, take_profit)
            if price > 0.0:
                cash += _close(trades[done], bar, price, reason, age, commission, slippage)
                done += 1
                side = 0
            else:
                trade = trades[done]
                up = side * ((high[bar] if side > 0 else low[bar]) / trade.entry_price - 1.0)
                down = side * ((low[bar] if side > 0 else high[bar]) / trade.entry_price - 1.0)
                trade.mae = min(trade.mae, down)
                trade.mfe = max(trade.mfe, up)
                value = cash + side * trade.size * (close[bar] - trade.entry_price) - trade.commission
                if value <= 0.0 or bar == count - 1:
                    reason = RUIN if value <= 0.0 else END_OF_DATA
                    cash += _close(trades[done], bar, close[bar], reason, age, commission, slippage)
                    done += 1
                    side = 0
                    ruined = reason == RUIN
                else:
                    equity[bar] = value
                    position[bar] = side * trade.size
                    continue
        equity[bar] = cash
    return done
