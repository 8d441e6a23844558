"""The pages about strategies, figures and data say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from ktrdr_zmq.samples import SAMPLES
from ktrdr_zmq.strategy import parse_strategy

DOCS = Path(__file__).parents[3] / "docs"


def test_the_generated_tables_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, DOCS / "make_reference.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_is_a_valid_strategy() -> None:
    example = re.search(r"```yaml\n(.*?)```", (DOCS / "strategies.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    assert parse_strategy(example[1], "docs/strategies.md").feature_ids == [
        "1h_momentum_oversold", "1h_momentum_overbought", "1d_momentum_oversold", "1d_momentum_overbought", "1h_adx_14.plus_di",
    ]  # fmt: skip


def test_the_samples_are_those_of_the_page() -> None:
    page = (DOCS / "data.md").read_text(encoding="utf-8")
    for sample in SAMPLES:
        assert f"| {sample.symbol} | {sample.timeframe} | {sample.bars:,} | {sample.first} to {sample.last} |" in page
