"""How many bars a second a backtest goes through on one core, figures included; beside vectorbt and backtesting.py if they are installed.

    python benchmarks/backtest.py
    python benchmarks/backtest.py --bars 200000 --json
    tox -e bench-backtest                              # with both of the others

Two accounts over a random walk of minutes, with costs: one that follows the cross of two moving averages, long or short all the time, and
one that enters by chance and leaves at a stop or a target. Decisions are made beforehand and not measured. Measured is everything from
decisions to figures:

    score                trading.performance.score: figures only
    simulate + measure   the same with every trade and the equity of every bar written down
    vectorbt             Portfolio.from_signals, and its stats()
    vectorbt, bare       the same without figures, but for the number of trades
    backtesting.py       Backtest.run, which ends with its statistics

Each is run once to compile what it compiles, and then as often as `--repeats` says; backtesting.py once, because it takes seconds. A figure
is bars over processor time of this process, in the best run. The walk is the same for all; the number of trades shows what was simulated.
Their rules differ in details (docs/backtesting.md), so that the trades of the second account do so as well.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ktrdr_worker.trading.backtest import Rules, simulate
from ktrdr_worker.trading.performance import Clock, measure, score

MINUTE = 60_000_000_000
COSTS = {"commission": 1e-5, "slippage": 1e-5}
PEERS = ("vectorbt", "backtesting")


class Account(NamedTuple):
    """Bars, decisions at their closes, and rules."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    decisions: np.ndarray
    rules: Rules
    clock: Clock


class Ran(NamedTuple):
    """What a run took in seconds of processor time, and how many trades there were."""

    seconds: float
    trades: int


def accounts(bars: int) -> dict[str, Account]:
    chance = np.random.default_rng(1)
    close = np.exp(np.cumsum(chance.normal(0.0, 2e-4, bars)))
    open_ = np.append(1.0, close[:-1])
    high = np.maximum(open_, close) * (1 + np.abs(chance.normal(0.0, 1e-4, bars)))
    low = np.minimum(open_, close) * (1 - np.abs(chance.normal(0.0, 1e-4, bars)))
    opens = np.arange(bars, dtype=np.int64) * MINUTE
    clock = Clock(opens, opens + MINUTE, opens // (1440 * MINUTE), 365)
    side = np.sign(average(close, 20) - average(close, 50))
    cross = np.where(side != np.append(0.0, side[:-1]), side, 0).astype(np.int8)
    entries = chance.choice(np.array([-1, 0, 1], dtype=np.int8), bars, p=[0.01, 0.98, 0.01])
    return {
        "cross": Account(open_, high, low, close, cross, Rules(1e5, **COSTS), clock),
        "bracket": Account(open_, high, low, close, entries, Rules(1e5, stop_loss=0.002, take_profit=0.003, **COSTS), clock),
    }


def average(values: np.ndarray, length: int) -> np.ndarray:
    """The mean of the last values; 0 where there are not enough, so that averages of two lengths differ only once both are there."""
    total = np.cumsum(values)
    made = np.zeros(len(values))
    made[length - 1 :] = (total[length - 1 :] - np.append(0.0, total[:-length])) / length
    made[:49] = 0.0
    return made


def timed(work: Callable[[], int], repeats: int) -> Ran:
    """The fastest of so many runs."""
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        trades = work()
        found.append(Ran(time.process_time() - begun, trades))
    return min(found)


def by_score(account: Account) -> int:
    return score(*account).trades


def by_simulate(account: Account) -> int:
    *columns, rules, clock = account
    outcome = simulate(*columns, rules)
    return measure(outcome, account.close, clock, rules.capital).trades


def by_vectorbt(account: Account) -> int:
    return int(vectorbt_portfolio(account).stats()["Total Trades"])


def by_bare_vectorbt(account: Account) -> int:
    return int(vectorbt_portfolio(account).trades.count())


def vectorbt_portfolio(account: Account) -> Any:
    import pandas as pd
    import vectorbt

    rules = account.rules
    before = np.append(np.int8(0), account.decisions[:-1])  # what was decided at a close is filled at the next open
    index = pd.DatetimeIndex(account.clock.opens.astype("datetime64[ns]"))
    stops = {"sl_stop": rules.stop_loss, "tp_stop": rules.take_profit} if rules.stop_loss else {}
    return vectorbt.Portfolio.from_signals(
        pd.Series(account.close, index), entries=before > 0, short_entries=before < 0, price=account.open, open=account.open,
        high=account.high, low=account.low, fees=rules.commission, slippage=rules.slippage, init_cash=rules.capital,
        upon_opposite_entry="reverse", freq="1min", **stops,
    )  # fmt: skip


def by_backtesting(account: Account) -> int:
    import pandas as pd
    from backtesting import Backtest, Strategy

    rules, opens = account.rules, account.open * 1e-6

    class Given(Strategy):  # type: ignore[misc]
        def init(self) -> None:
            pass

        def next(self) -> None:
            bar = len(self.data)
            decision = int(account.decisions[bar - 1])
            if decision and bar < len(opens) and decision * self.position.size <= 0:
                self.position.close()
                levels = {}
                if rules.stop_loss:
                    levels = {"sl": opens[bar] * (1 - decision * rules.stop_loss), "tp": opens[bar] * (1 + decision * rules.take_profit)}
                (self.buy if decision > 0 else self.sell)(**levels)

    columns = {"Open": account.open, "High": account.high, "Low": account.low, "Close": account.close}
    frame = pd.DataFrame(columns, pd.DatetimeIndex(account.clock.closes.astype("datetime64[ns]"))) * 1e-6  # it trades whole units
    test = Backtest(frame, Given, cash=rules.capital, spread=2 * rules.slippage, commission=rules.commission, finalize_trades=True)
    return int(test.run()["# Trades"])


RUNNERS: dict[str, Callable[[Account], int]] = {
    "score": by_score,
    "simulate + measure": by_simulate,
    "vectorbt": by_vectorbt,
    "vectorbt, bare": by_bare_vectorbt,
    "backtesting.py": by_backtesting,
}


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def conditions(bars: int, repeats: int) -> dict[str, Any]:
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "bars": bars, "repeats": repeats, "cpu": cpu or platform.processor(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(), **{name: version(name) for name in ("numba", "numpy", "pandas", *PEERS)},
    }  # fmt: skip


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=1_000_000, metavar="N", help="length of the walk (default 1000000)")
    parser.add_argument("--repeats", type=int, default=10, metavar="R", help="how often the fast ones are run (default 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    missing = [name for name in PEERS if version(name) is None]
    made, found = accounts(options.bars), {}
    short = accounts(2000)
    for name, run in RUNNERS.items():
        if any(name.startswith(peer) for peer in missing):
            continue
        slow = name == "backtesting.py"
        for kind, account in made.items():
            run(short[kind])
            found[kind, name] = timed(lambda run=run, account=account: run(account), 1 if slow else options.repeats)  # type: ignore[misc]
    rows = [
        {"account": kind, "by": name, "bars_per_s": options.bars / ran.seconds, "trades": ran.trades,
         "ours_is_faster_by": ran.seconds / found[kind, "score"].seconds}
        for (kind, name), ran in sorted(found.items())
    ]  # fmt: skip
    around = conditions(options.bars, options.repeats)
    if options.json:
        print(json.dumps({"schema": 1, "results": rows, "missing": missing, "conditions": around}))
        return
    print(f"{'account':9}{'by':20}{'M bars/s':>10}{'trades':>10}   score is faster by")
    for row in rows:
        print(f"{row['account']:9}{row['by']:20}{row['bars_per_s'] / 1e6:10.2f}{row['trades']:10,}   {row['ours_is_faster_by']:.1f}")
    for name in missing:
        print(f"{name} is not installed: pip install {name}, or tox -e bench-backtest")
    print("\n" + ", ".join(f"{key} {value}" for key, value in around.items()))


if __name__ == "__main__":
    main()
