"""The backtest kernel once more, in plain Python with objects: written from its rules, not from its code.

It computes with whatever numbers it is given: with floats as the kernel does, with fractions without any rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    entry_bar: int
    side: int
    size: float
    entry_price: float
    commission: float
    slippage: float
    mae: float = 0.0
    mfe: float = 0.0


@dataclass
class Account:
    """Trades bar by bar; `trades` has the columns of the kernel's in their order."""

    rules: Any
    cash: float = 0.0
    position: Position | None = None
    trades: list[tuple[Any, ...]] = field(default_factory=list)
    ruined: bool = False

    def enter(self, bar: int, price: float, side: int) -> None:
        rules = self.rules
        filled = price * (1 + side * rules.slippage)
        size = self.cash * rules.fraction / (filled * (1 + rules.commission))
        self.position = Position(bar, side, size, filled, rules.commission * size * filled, size * price * rules.slippage)

    def leave(self, bar: int, price: float, reason: str, bars: int) -> None:
        held, rules = self.position, self.rules
        assert held is not None
        filled = price * (1 - held.side * rules.slippage)
        leg = rules.commission * held.size * filled
        move = held.side * (price / held.entry_price - 1)
        pnl = held.side * held.size * (filled - held.entry_price) - held.commission - leg
        self.trades.append((
            held.entry_bar, bar, held.side, held.size, held.entry_price, filled, pnl, held.commission + leg,
            held.slippage + held.size * price * rules.slippage, min(held.mae, move), max(held.mfe, move), bars, reason,
        ))  # fmt: skip
        self.cash += pnl
        self.position = None


def inside(held: Position, rules: Any, open_: float, high: float, low: float) -> tuple[float, str] | None:
    """Where stop or target closes the position inside a bar; the stop is looked at first."""
    long = held.side > 0
    if rules.stop_loss:
        level = held.entry_price * (1 - held.side * rules.stop_loss)
        if (low <= level) if long else (high >= level):
            beyond = open_ <= level if long else open_ >= level
            return (open_ if beyond else level), "stop_loss"
    if rules.take_profit:
        level = held.entry_price * (1 + held.side * rules.take_profit)
        if (high >= level) if long else (low <= level):
            beyond = open_ >= level if long else open_ <= level
            return (open_ if beyond else level), "take_profit"
    return None


def trade(
    bars: list[tuple[float, float, float, float]], decisions: list[int], rules: Any
) -> tuple[list[Any], list[float], list[float], list[bool]]:
    """Trades, equity and position at each close, and whether a position was open in each bar."""
    account = Account(rules, rules.capital)
    equity, positions, exposed = [], [], []
    for bar, (open_, high, low, close) in enumerate(bars):
        decision = decisions[bar - 1] if bar else 0
        side = account.position.side if account.position else 0
        wanted = {1: 1, 0: side, -1: -1 if rules.allow_short else 0}[decision]
        if not account.ruined:
            held = account.position
            if held and wanted != side:
                account.leave(bar, open_, "signal", bar - held.entry_bar)
            elif held and rules.max_holding_bars and bar - held.entry_bar >= rules.max_holding_bars:
                account.leave(bar, open_, "max_holding", bar - held.entry_bar)
            if wanted and wanted != side and account.cash > 0:
                account.enter(bar, open_, wanted)
        held = account.position
        exposed.append(held is not None)
        value = account.cash
        if held:
            bars_held = bar - held.entry_bar + 1
            found = inside(held, rules, open_, high, low)
            if found:
                account.leave(bar, found[0], found[1], bars_held)
            else:
                best, worst = (high, low) if held.side > 0 else (low, high)
                held.mfe = max(held.mfe, held.side * (best / held.entry_price - 1))
                held.mae = min(held.mae, held.side * (worst / held.entry_price - 1))
                value = account.cash + held.side * held.size * (close - held.entry_price) - held.commission
                if value <= 0.0:
                    account.leave(bar, close, "ruin", bars_held)
                    account.ruined = True
                elif bar == len(bars) - 1:
                    account.leave(bar, close, "end_of_data", bars_held)
        equity.append(value if account.position else account.cash)
        positions.append(account.position.side * account.position.size if account.position else 0.0)
    return account.trades, equity, positions, exposed
