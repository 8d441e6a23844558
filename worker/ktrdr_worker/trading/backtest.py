"""The backtest kernel: decisions and bars in; trades and an equity curve out, or only what figures are made of. Knows no strategies.

A decision is made at the close of a bar and filled at the open of the next one, so that the last bar's decision is never filled. One
position at a time. Stop and target are looked for inside each bar, the entry bar included: an open beyond a level fills at the open, and
where one bar touches both, the stop counts. Slippage moves every fill against the trader, commission is taken on both legs, and both are
part of a trade's PnL: the sum of PnL is the change of equity. What is open at the end is closed at the last close.

The rules stand here once. `simulate` writes down every trade and the equity of every bar; `tally` keeps only sums, in the same pass and
without memory of its own, for the many backtests of which one wants to know nothing but the figures. `tally_outcome` makes the same sums
of what `simulate` wrote, in the same order and hence to the same bit.

`tests/unit/trading/twin.py` is the kernel in plain Python; the two agree to the last bit. All compiled code that calls each other is in
this module: numba's cache looks at the module of the caller only.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

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

SUMS_DTYPE: Final = np.dtype([
    ("sessions", "i8"), ("bars_held", "i8"), ("equity_final", "f8"), ("equity_peak", "f8"),
    ("falls", "i8"), ("depths", "f8"), ("deepest", "f8"), ("fall_ns", "i8"), ("longest_fall_ns", "i8"),
    ("trades", "i8"), ("long_trades", "i8"), ("won", "i8"), ("lost", "i8"), ("profit", "f8"), ("loss", "f8"), ("mean_pnl", "f8"),
    ("squares", "f8"), ("shares", "f8"), ("best", "f8"), ("worst", "f8"), ("trade_bars", "i8"), ("longest_trade", "i8"),
    ("commission", "f8"), ("slippage", "f8"),
])  # fmt: skip
"""What figures are made of. Falls are drawdowns: how many, the sum of their depths (fractions, negative), the deepest, the sum of their
lengths, the longest. ``loss`` is negative; ``squares`` sums the squared distances of the PnL from its mean (Welford, Technometrics 4 (1962)
419); ``shares`` sums PnL over value at entry, ``best`` and ``worst`` are the ends of it."""


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


class Sums(NamedTuple):
    """What figures are made of.

    Attributes
    ----------
    sums : dict
        By the names of SUMS_DTYPE.
    marks : array of float64, one a session
        Equity at the last close of each session.
    """

    sums: dict[str, Any]
    marks: Array


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
    arguments, count = _arguments((open_, high, low, close), decisions, rules)
    trades: Array = np.empty(count + 1, dtype=TRADE_DTYPE)  # a bar ends two trades at most, and then begins only one: never more than n + 1
    equity, position = np.empty(count), np.zeros(count)
    held: Array = np.zeros(count, dtype=np.bool_)
    found = _kernel(*arguments, trades, equity, position, held, None, None, None, None, None)
    return Outcome(trades[:found].copy(), equity, position, held)


def tally(
    open_: Array, high: Array, low: Array, close: Array,
    decisions: Array, rules: Rules, opens: Array, closes: Array, sessions: Array,
) -> Sums:  # fmt: skip
    """Trade a window of bars as `simulate` does, and keep only what figures are made of.

    Parameters
    ----------
    open_, high, low, close, decisions, rules
        As for `simulate`.
    opens, closes : array of int64, shape (n,)
        Times of the bars in nanoseconds.
    sessions : array of int64, shape (n,)
        Number of the session of each bar.
    """
    arguments, count = _arguments((open_, high, low, close), decisions, rules)
    account = _account(count, opens, closes, sessions)
    _kernel(*arguments, None, None, None, None, *account)
    return _sums(account)


def tally_outcome(outcome: Outcome, capital: float, opens: Array, closes: Array, sessions: Array) -> Sums:
    """Make of an outcome what `tally` makes of the same backtest; parameters as there."""
    account = _account(len(outcome.equity), opens, closes, sessions)
    _add_up(outcome.trades, outcome.equity, outcome.held, float(capital), *account)
    return _sums(account)


def _account(count: int, opens: Array, closes: Array, sessions: Array) -> tuple[Any, ...]:
    """What compiled code adds up in: sums, times, and the marks of as many sessions as there may be."""
    times = [_fixed(a, np.int64) for a in (opens, closes, sessions)]
    if any(len(a) != count for a in times):
        raise ValueError("there must be as many times as bars")
    return np.zeros(1, dtype=SUMS_DTYPE)[0], *times, np.empty(count)  # memory that is not written to is not taken


def _sums(account: tuple[Any, ...]) -> Sums:
    sums = dict(zip(SUMS_DTYPE.names or (), account[0].item(), strict=True))
    return Sums(sums, account[-1][: sums["sessions"]].copy())


def _arguments(prices: tuple[Array, Array, Array, Array], decisions: Array, rules: Rules) -> tuple[tuple[Any, ...], int]:
    """What the kernel is called with, and the number of bars."""
    arrays = [_fixed(a, np.float64) for a in prices]
    count = len(arrays[3])
    if count == 0 or any(len(a) != count for a in (*arrays, decisions)):
        raise ValueError("prices and decisions must be of one length, and there must be a bar")
    return (
        *arrays, _fixed(decisions, np.int8), float(rules.capital), float(rules.fraction), float(rules.commission),
        float(rules.slippage), bool(rules.allow_short), float(rules.stop_loss), float(rules.take_profit), int(rules.max_holding_bars),
    ), count  # fmt: skip


def _fixed(array: Array, kind: Any) -> Array:
    """An array as compiled code takes it: read-only, as bars of a file may be. For numba that is a type of its own, to be compiled anew."""
    view = np.ascontiguousarray(array, dtype=kind).view()
    view.flags.writeable = False
    return view


# ---------------------------------------------------------------- sums


@njit(cache=True, nogil=True, error_model="numpy")
def _add_trade(sums, side, size, entry_price, pnl, commission, slippage, bars):  # type: ignore[no-untyped-def]
    """Add a closed trade."""
    share = pnl / (size * entry_price)
    if sums.trades == 0:
        sums.best = share
        sums.worst = share
    sums.trades += 1
    if side > 0:
        sums.long_trades += 1
    if pnl > 0.0:
        sums.won += 1
        sums.profit += pnl
    elif pnl < 0.0:
        sums.lost += 1
        sums.loss += pnl
    distance = pnl - sums.mean_pnl
    sums.mean_pnl += distance / sums.trades
    sums.squares += distance * (pnl - sums.mean_pnl)
    sums.shares += share
    sums.best = max(sums.best, share)
    sums.worst = min(sums.worst, share)
    sums.trade_bars += bars
    sums.longest_trade = max(sums.longest_trade, bars)
    sums.commission += commission
    sums.slippage += slippage


@njit(cache=True, nogil=True, error_model="numpy")
def _add_fall(sums, peak, lowest, length):  # type: ignore[no-untyped-def]
    """Add a drawdown from `peak` to `lowest` that took `length` nanoseconds from the peak to its end."""
    depth = lowest / peak - 1.0
    sums.falls += 1
    sums.depths += depth
    sums.deepest = min(sums.deepest, depth)
    sums.fall_ns += length
    sums.longest_fall_ns = max(sums.longest_fall_ns, length)


@njit(cache=True, nogil=True, error_model="numpy")
def _follow(sums, value, moment, peak, lowest, since):  # type: ignore[no-untyped-def]
    """Take in the equity at a bar's close; return the highest so far, the lowest after it, and when the highest was."""
    if value >= peak:
        if lowest < peak:
            _add_fall(sums, peak, lowest, moment - since)
        return value, value, moment
    return peak, min(lowest, value), since


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(sums, held, value, moment, peak, lowest, since):  # type: ignore[no-untyped-def]
    """Take in the end: a drawdown that has not ended ends with the bars."""
    if lowest < peak:
        _add_fall(sums, peak, lowest, moment - since)
    sums.bars_held, sums.equity_final, sums.equity_peak = held, value, peak


# Arrays are not handed to functions inside a loop: numba counts references to them then, which costs more than all the rest of a bar.


@njit(cache=True, nogil=True, error_model="numpy")
def _add_up(trades, equity, held, capital, sums, opens, closes, sessions, marks):  # type: ignore[no-untyped-def]
    """Make the sums of an outcome."""
    for trade in trades:
        _add_trade(sums, trade.side, trade.size, trade.entry_price, trade.pnl, trade.commission, trade.slippage, trade.bars_held)
    last = len(equity) - 1
    peak, lowest, since = capital, capital, opens[0]
    for bar in range(last + 1):
        peak, lowest, since = _follow(sums, equity[bar], closes[bar], peak, lowest, since)
        if bar == last or sessions[bar + 1] != sessions[bar]:
            marks[sums.sessions] = equity[bar]
            sums.sessions += 1
    _finish(sums, held.sum(), equity[last], closes[last], peak, lowest, since)


# ---------------------------------------------------------------- the kernel


@njit(cache=True, nogil=True, error_model="numpy")
def _enter(side, raw_price, money, commission, slippage):  # type: ignore[no-untyped-def]
    """Fill an entry with `money`, the commission of this leg included; return size, price, commission and what slippage took."""
    price = raw_price * (1.0 + side * slippage)
    size = money / (price * (1.0 + commission))
    return size, price, commission * size * price, size * raw_price * slippage


@njit(cache=True, nogil=True, error_model="numpy")
def _leave(position, bar, raw_price, reason, bars, commission, slippage, done, trades, sums):  # type: ignore[no-untyped-def]
    """Fill an exit at `raw_price` less slippage, write the trade down or add it up; return its PnL."""
    side, size, entry_bar, entry_price, paid, slipped, mae, mfe = position
    price = raw_price * (1.0 - side * slippage)
    leg = commission * size * price
    pnl = side * size * (price - entry_price) - paid - leg
    slipped += size * raw_price * slippage
    if trades is not None:
        move = side * (raw_price / entry_price - 1.0)
        trade = trades[done]
        trade.entry_bar, trade.exit_bar, trade.side, trade.size = entry_bar, bar, side, size
        trade.entry_price, trade.exit_price, trade.pnl = entry_price, price, pnl
        trade.commission, trade.slippage = paid + leg, slipped
        trade.mae, trade.mfe = min(mae, move), max(mfe, move)
        trade.bars_held, trade.exit_reason = bars, reason
    if sums is not None:
        _add_trade(sums, side, size, entry_price, pnl, paid + leg, slipped, bars)
    return pnl


@njit(cache=True, nogil=True, error_model="numpy")
def _inside(side, open_, high, low, stop, target):  # type: ignore[no-untyped-def]
    """Look for stop and target inside a bar; return the price of the exit (0: none) and its reason."""
    if side > 0:
        if low <= stop:
            return min(open_, stop), STOP_LOSS
        if high >= target:
            return max(open_, target), TAKE_PROFIT
    else:
        if high >= stop:
            return max(open_, stop), STOP_LOSS
        if low <= target:
            return min(open_, target), TAKE_PROFIT
    return 0.0, SIGNAL


@njit(cache=True, nogil=True, error_model="numpy")
def _kernel(  # type: ignore[no-untyped-def]  # noqa: C901, PLR0912, PLR0915  # the rules of an account, in the order of a bar
    open_, high, low, close, decisions, capital, fraction, commission, slippage, allow_short, stop_loss, take_profit, max_holding,
    trades, equity, positions, in_position, sums, opens, closes, sessions, marks,
):  # fmt: skip
    """Trade; write into four arrays, or add up with the other five, all of which may be None; return the number of trades."""
    last, done, held = len(close) - 1, 0, 0
    side, entry_bar = 0, 0
    size = entry_price = paid = slipped = mae = mfe = stop = target = 0.0
    cash = peak = lowest = capital  # cash is equity without the open position's result
    since = 0 if opens is None else opens[0]
    ruined = False
    for bar in range(last + 1):
        if bar > 0 and not ruined:
            wanted = side
            if decisions[bar - 1] > 0:
                wanted = 1
            elif decisions[bar - 1] < 0:
                wanted = -1 if allow_short else 0
            turn = wanted != side
            if side != 0 and (turn or (max_holding > 0 and bar - entry_bar >= max_holding)):
                position = (side, size, entry_bar, entry_price, paid, slipped, mae, mfe)
                reason = SIGNAL if turn else MAX_HOLDING
                cash += _leave(position, bar, open_[bar], reason, bar - entry_bar, commission, slippage, done, trades, sums)
                done += 1
                side = 0
            if turn and wanted != 0 and cash > 0.0:
                side, entry_bar, mae, mfe = wanted, bar, 0.0, 0.0
                size, entry_price, paid, slipped = _enter(side, open_[bar], cash * fraction, commission, slippage)
                stop = entry_price * (1.0 - side * stop_loss) if stop_loss > 0.0 else -side * np.inf
                target = entry_price * (1.0 + side * take_profit) if take_profit > 0.0 else side * np.inf
        value, units = cash, 0.0
        if side != 0:
            held += 1
            price, reason = _inside(side, open_[bar], high[bar], low[bar], stop, target)
            if price == 0.0:
                units = side * size
                value = cash + units * (close[bar] - entry_price) - paid
                ruined = value <= 0.0
                if ruined or bar == last:
                    price, reason = close[bar], RUIN if ruined else END_OF_DATA
                if trades is not None:
                    best, worst = (high[bar], low[bar]) if side > 0 else (low[bar], high[bar])
                    mae = min(mae, side * (worst / entry_price - 1.0))
                    mfe = max(mfe, side * (best / entry_price - 1.0))
            if trades is not None:
                in_position[bar] = True
            if price > 0.0:
                position = (side, size, entry_bar, entry_price, paid, slipped, mae, mfe)
                cash += _leave(position, bar, price, reason, bar - entry_bar + 1, commission, slippage, done, trades, sums)
                done += 1
                side = 0
                value, units = cash, 0.0
        if trades is not None:
            equity[bar], positions[bar] = value, units
        if sums is not None:
            peak, lowest, since = _follow(sums, value, closes[bar], peak, lowest, since)
            if bar == last or sessions[bar + 1] != sessions[bar]:
                marks[sums.sessions] = value
                sums.sessions += 1
    if sums is not None:
        _finish(sums, held, cash, closes[last], peak, lowest, since)
    return done
