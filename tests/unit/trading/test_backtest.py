"""The kernel: single trades checked by hand, everything against the twin, and what must hold for money whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr_worker.trading import backtest
from ktrdr_worker.trading.backtest import Outcome, Rules, simulate
from ktrdr_zmq.results import EXIT_REASONS
from tests.unit.trading.made import walk
from tests.unit.trading.twin import trade

pytestmark = pytest.mark.timeout(120)  # the first call compiles


def run(bars: list[tuple[float, float, float, float]], decisions: list[int], **rules: object) -> Outcome:
    columns = np.array(bars, dtype=np.float64).T
    return simulate(*columns, np.array(decisions, dtype=np.int8), Rules(**{"capital": 1000.0, **rules}))  # type: ignore[arg-type]


FLAT = [(10.0, 10.5, 9.5, 10.0)] * 6


def test_a_decision_is_filled_at_the_next_open_and_the_last_one_never() -> None:
    bars = [(10.0, 10.0, 10.0, 10.0), (11.0, 12.0, 11.0, 12.0), (13.0, 14.0, 13.0, 14.0)]
    bought = run(bars, [1, 0, 0])
    assert [(t["entry_bar"], t["entry_price"], t["exit_bar"], t["exit_price"]) for t in bought.trades] == [(1, 11.0, 2, 14.0)]
    assert EXIT_REASONS[bought.trades[0]["exit_reason"]] == "end_of_data"
    assert bought.equity.tolist() == [1000.0, 1000.0 * 12 / 11, 1000.0 * 14 / 11]
    assert bought.held.tolist() == [False, True, True]
    assert len(run(bars, [0, 0, 1]).trades) == 0


def test_a_turn_closes_and_opens_at_one_price() -> None:
    outcome = run(FLAT, [1, 0, -1, 0, 0, 0])
    assert [(t["side"], t["entry_bar"], t["exit_bar"], t["bars_held"]) for t in outcome.trades] == [(1, 1, 3, 2), (-1, 3, 5, 3)]
    flat = run(FLAT, [1, 0, -1, 0, 0, 0], allow_short=False)
    assert [(t["side"], t["exit_bar"]) for t in flat.trades] == [(1, 3)]


def test_stop_and_target_inside_a_bar_on_gaps_and_both_at_once() -> None:
    def ended(*bars: tuple[float, float, float, float], side: int = 1) -> tuple[float, str]:
        found = run([(10.0, 10.0, 10.0, 10.0), (10.0, 10.2, 9.8, 10.0), *bars], [side, 0, *[0] * len(bars)], stop_loss=0.1, take_profit=0.1)
        return float(found.trades[0]["exit_price"]), EXIT_REASONS[found.trades[0]["exit_reason"]]

    assert ended((10.0, 10.5, 8.5, 9.5)) == (9.0, "stop_loss")
    assert ended((8.0, 8.5, 7.5, 8.2)) == (8.0, "stop_loss")
    assert ended((10.0, 11.5, 9.5, 11.0)) == (11.0, "take_profit")
    assert ended((12.0, 12.5, 11.5, 12.2)) == (12.0, "take_profit")
    assert ended((10.0, 11.5, 8.5, 10.0)) == (9.0, "stop_loss")
    assert ended((10.0, 11.5, 9.5, 10.0), side=-1) == (11.0, "stop_loss")
    assert ended((8.5, 8.9, 8.2, 8.8), side=-1) == (8.5, "take_profit")
    assert ended((11.5, 11.6, 8.9, 10.0)) == (9.0, "stop_loss"), "also where it opened beyond the target"


def test_the_stop_counts_from_the_entry_bar_on() -> None:
    outcome = run([(10.0, 10.0, 10.0, 10.0), (10.0, 10.0, 8.0, 9.9), (9.9, 9.9, 9.9, 9.9)], [1, 0, 0], stop_loss=0.1)
    assert [(t["exit_bar"], t["exit_price"], t["bars_held"]) for t in outcome.trades] == [(1, 9.0, 1)]


def test_holding_has_a_limit_and_a_kept_signal_enters_no_sooner_than_the_next_one() -> None:
    outcome = run(FLAT, [1, 0, 0, 0, 0, 0], max_holding_bars=2)
    assert [(t["entry_bar"], t["exit_bar"], EXIT_REASONS[t["exit_reason"]]) for t in outcome.trades] == [(1, 3, "max_holding")]


def test_costs_are_taken_on_both_legs() -> None:
    outcome = run(FLAT, [1, -1, 0, 0, 0, 0], commission=0.001, slippage=0.002, fraction=0.5, allow_short=False)
    deal = outcome.trades[0]
    assert deal["entry_price"] == pytest.approx(10.02)
    assert deal["exit_price"] == pytest.approx(9.98)
    assert deal["size"] == pytest.approx(500 / (10.02 * 1.001))
    assert deal["commission"] == pytest.approx(0.001 * deal["size"] * 20.0)
    assert deal["pnl"] == pytest.approx(deal["size"] * -0.04 - deal["commission"])
    assert outcome.equity[-1] == pytest.approx(1000 + deal["pnl"])


def test_an_account_that_is_ruined_trades_no_more() -> None:
    bars = [(10.0, 10.0, 10.0, 10.0), (10.0, 10.0, 10.0, 10.0), (10.0, 30.0, 10.0, 30.0), (5.0, 5.0, 5.0, 5.0), (5.0, 5.0, 5.0, 5.0)]
    outcome = run(bars, [-1, 0, 1, 1, 0])
    assert [EXIT_REASONS[t["exit_reason"]] for t in outcome.trades] == ["ruin"]
    assert outcome.equity[-1] == outcome.equity[2] <= 0


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, list[int], Rules]:
    count = draw(st.integers(1, 120))
    rules = Rules(
        capital=draw(st.sampled_from([1.0, 1000.0, 100_000.0])),
        fraction=draw(st.sampled_from([0.1, 0.5, 1.0])),
        commission=draw(st.sampled_from([0.0, 5e-5, 0.01])),
        slippage=draw(st.sampled_from([0.0, 5e-5, 0.01])),
        allow_short=draw(st.booleans()),
        stop_loss=draw(st.sampled_from([0.0, 0.002, 0.01, 0.5])),
        take_profit=draw(st.sampled_from([0.0, 0.003, 0.02, 2.0])),
        max_holding_bars=draw(st.sampled_from([0, 1, 2, 7])),
    )
    return draw(st.integers(0, 10_000)), count, draw(st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=count, max_size=count)), rules


@settings(max_examples=300, deadline=None)
@given(cases(), st.sampled_from([0.002, 0.05, 0.4]))
def test_the_kernel_and_its_twin_agree_to_the_last_bit(case: tuple[int, int, list[int], Rules], volatility: float) -> None:
    seed, count, decisions, rules = case
    bars = walk(count, seed, volatility=volatility)
    outcome = simulate(bars.open, bars.high, bars.low, bars.close, np.array(decisions, dtype=np.int8), rules)
    rows = list(zip(*(column.tolist() for column in (bars.open, bars.high, bars.low, bars.close)), strict=True))
    trades, equity, position, held = trade(rows, decisions, rules)
    assert [(*tuple(t.tolist())[:-1], EXIT_REASONS[t["exit_reason"]]) for t in outcome.trades] == trades
    assert outcome.equity.tolist() == equity
    assert outcome.position.tolist() == position
    assert outcome.held.tolist() == held
    total = float(outcome.trades["pnl"].sum())
    assert total == pytest.approx(equity[-1] - rules.capital, rel=1e-9, abs=1e-9 * rules.capital)


def same_up_to(simulated: Callable[..., Outcome], case: tuple[int, int, list[int], Rules], bar: int) -> bool:
    """Whether all is the same up to the close of a bar when later prices, and decisions from that close on, are others."""
    seed, count, decisions, rules = case
    bar = min(bar, count - 1)
    bars, other = walk(count, seed, volatility=0.02), walk(count, seed + 1, volatility=0.05)
    columns = [bars.open, bars.high, bars.low, bars.close, np.array(decisions, dtype=np.int8)]
    changed = [
        np.append(c[: bar + 1], o[bar + 1 :]) for c, o in zip(columns, (other.open, other.high, other.low, other.close), strict=False)
    ]
    changed.append(np.append(columns[4][:bar], -columns[4][bar:]))
    one, two = simulated(*columns, rules), simulated(*changed, rules)
    until = bar if bar == count - 1 else bar + 1  # at the last close everything is sold
    return (
        one.equity[:until].tolist() == two.equity[:until].tolist()
        and one.position[:until].tolist() == two.position[:until].tolist()
        and one.trades[one.trades["exit_bar"] < until].tolist() == two.trades[two.trades["exit_bar"] < until].tolist()
    )


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(0, 119))
def test_nothing_up_to_a_bar_depends_on_what_comes_after_it(case: tuple[int, int, list[int], Rules], bar: int) -> None:
    assert same_up_to(simulate, case, bar)


def test_a_kernel_that_looks_ahead_would_be_found_out() -> None:
    """Three that look ahead: at the decision of the bar itself, at the next open, at the highest close to come."""

    def decision(open_: Any, high: Any, low: Any, close: Any, decisions: Any, rules: Rules) -> Outcome:
        return simulate(open_, high, low, close, np.append(decisions[1:], np.int8(0)), rules)

    def price(open_: Any, high: Any, low: Any, close: Any, decisions: Any, rules: Rules) -> Outcome:
        return simulate(np.append(open_[1:], close[-1]), high, low, close, decisions, rules)

    def peak(open_: Any, high: Any, low: Any, close: Any, decisions: Any, rules: Rules) -> Outcome:
        return simulate(open_, high, low, close, np.where(close == close.max(), 1, decisions).astype(np.int8), rules)

    cases = [(seed, 60, [(-1, 0, 0, 1)[bar * 7 % 4] for bar in range(60)], Rules(1000.0)) for seed in range(20)]
    for peeking in (decision, price, peak):
        assert not all(same_up_to(peeking, case, bar) for case in cases for bar in (20, 31, 42))


EXACT = [(3, 3, 2, 3), (3, 4, 3, 4), (4, 5, 2, 3), (3, 6, 3, 5), (5, 5, 4, 4), (4, 4, 2, 2), (2, 3, 2, 3), (3, 4, 1, 2)]
"""Open, high, low and close as whole numbers."""


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(EXACT), min_size=3, max_size=40), st.data(), st.fractions(0, "1/20", max_denominator=1000),
    st.fractions(0, "1/50", max_denominator=1000), st.sampled_from([0, Fraction(1, 3)]), st.sampled_from([0, Fraction(1, 4)]),
)  # fmt: skip
def test_without_rounding_money_is_neither_made_nor_lost(
    bars: list[tuple[int, ...]], data: st.DataObject, commission: Fraction, slippage: Fraction, stop: Fraction, target: Fraction
) -> None:
    """In fractions, where equal means equal. Doubled commission costs once more what it cost, for each unit that was traded.

    The sizes are those of the account, which has less money then; the fills do not depend on them, so that a trade's PnL and commission
    for one unit are those of fixed sizes.
    """
    decisions = data.draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=len(bars), max_size=len(bars)))
    exact = [tuple(map(Fraction, bar)) for bar in bars]

    def traded(rate: Fraction) -> list[Any]:
        rules = Rules(Fraction(1000), Fraction(1, 50), rate, slippage, stop_loss=stop, take_profit=target)  # type: ignore[arg-type]
        trades, equity, _, _ = trade(exact, decisions, rules)  # type: ignore[arg-type]
        assert sum(row[6] for row in trades) == equity[-1] - 1000
        return trades

    once, twice = traded(commission), traded(2 * commission)
    assert [row[:3] + row[4:6] + row[-2:] for row in once] == [row[:3] + row[4:6] + row[-2:] for row in twice], "the same fills"
    for first, second in zip(once, twice, strict=True):
        size, pnl, paid = first[3], first[6], first[7]
        assert second[7] / second[3] == 2 * paid / size
        assert second[6] / second[3] == (pnl - paid) / size


def test_arrays_that_do_not_fit_are_refused() -> None:
    one = np.ones(3)
    with pytest.raises(ValueError, match="one length"):
        simulate(one, one, one, one, np.zeros(2, dtype=np.int8), Rules(1.0))
    with pytest.raises(ValueError, match="there must be a bar"):
        simulate(one[:0], one[:0], one[:0], one[:0], np.zeros(0, dtype=np.int8), Rules(1.0))


def test_bars_of_a_file_that_cannot_be_written_to_need_no_compiling_of_their_own() -> None:
    bars = walk(50)
    prices = [column.copy() for column in (bars.open, bars.high, bars.low, bars.close)]
    simulate(*prices, np.ones(50, dtype=np.int8), Rules(1.0))
    known = len(backtest._kernel.signatures)
    for column in prices:
        column.flags.writeable = False
    simulate(*prices, np.ones(50, dtype=np.int8), Rules(1.0))
    assert len(backtest._kernel.signatures) == known
