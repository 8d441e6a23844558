"""The benchmarks run, and all that the one of the backtest compares simulate the same thing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.science, pytest.mark.timeout(120)]

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "backtest.py"


def test_the_benchmark_of_the_backtest() -> None:
    words = [sys.executable, str(SCRIPT), "--bars", "3000", "--repeats", "1", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=True)
    found = json.loads(done.stdout)
    rows = {(row["account"], row["by"]): row for row in found["results"]}
    for account in ("cross", "bracket"):
        assert rows[account, "score"]["trades"] == rows[account, "simulate + measure"]["trades"] > 10
        assert rows[account, "score"]["bars_per_s"] > 0
    peers = {"backtesting.py", "vectorbt", "vectorbt, bare"}
    assert {by for _, by in rows} | {by for by in peers if any(by.startswith(name) for name in found["missing"])} == peers | {
        "score",
        "simulate + measure",
    }
    assert len({row["trades"] for (account, _), row in rows.items() if account == "cross"}) == 1


def test_the_benchmark_of_bars() -> None:
    words = [sys.executable, str(SCRIPT.with_name("bars.py")), "--bars", "3000", "--repeat", "1", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=True)
    found = json.loads(done.stdout)
    assert found["bars"] == 3000
    assert min(found.values()) > 0
