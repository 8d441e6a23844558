"""The kernel: single trades checked by hand, everything against the twin, and what must hold for money whatever happens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(1, 100))
def test_nothing_up_to_a_bar_depends_on_what_comes_after_it(case: tuple[int, int, list[int], Rules], cut: int) -> None:
    seed, count, decisions, rules = case
    cut = min(cut, count)
    bars = walk(count, seed, volatility=0.02)
    whole = simulate(bars.open, bars.high, bars.low, bars.close, np.array(decisions, dtype=np.int8), rules)
    part = simulate(*(c[:cut] for c in (bars.open, bars.high, bars.low, bars.close)), np.array(decisions[:cut], dtype=np.int8), rules)
    assert part.equity[: cut - 1].tolist() == whole.equity[: cut - 1].tolist()
    assert part.position[: cut - 1].tolist() == whole.position[: cut - 1].tolist()
    before = whole.trades[whole.trades["exit_bar"] < cut - 1]
    assert part.trades[part.trades["exit_bar"] < cut - 1].tolist() == before.tolist()


def test_doubled_commission_costs_exactly_as_much_more() -> None:
    """With a size that does not depend on it: commission is the only difference."""
    bars = walk(500, 3)
    decisions = np.array([1, 0, -1, 0] * 125, dtype=np.int8)
    once = simulate(bars.open, bars.high, bars.low, bars.close, decisions, Rules(1e9, fraction=1e-6, commission=0.001))
    twice = simulate(bars.open, bars.high, bars.low, bars.close, decisions, Rules(1e9, fraction=1e-6, commission=0.002))
    gross = once.trades["pnl"] + once.trades["commission"]
    assert len(once.trades) > 100
    assert (gross / once.trades["size"]).tolist() == pytest.approx(
        ((twice.trades["pnl"] + twice.trades["commission"]) / twice.trades["size"]).tolist()
    )
    assert (twice.trades["commission"] / twice.trades["size"]).tolist() == pytest.approx(
        (2 * once.trades["commission"] / once.trades["size"]).tolist()
    )


def test_arrays_that_do_not_fit_are_refused() -> None:
    one = np.ones(3)
    with pytest.raises(ValueError, match="one length"):
        simulate(one, one, one, one, np.zeros(2, dtype=np.int8), Rules(1.0))
    with pytest.raises(ValueError, match="there must be a bar"):
        simulate(one[:0], one[:0], one[:0], one[:0], np.zeros(0, dtype=np.int8), Rules(1.0))
