"""What numba compiles is kept on disk, and what most jobs need is compiled before a worker is ready."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import typeof

from ktrdr_worker.jobs import backtesting, training
from ktrdr_worker.trading import backtest, labels
from ktrdr_worker.trading.bars import load
from ktrdr_zmq.samples import SAMPLES
from ktrdr_zmq.strategy.schema import Labels

WORKER = Path(__file__).parents[3] / "worker" / "ktrdr_worker"


def test_everything_that_is_compiled_is_kept() -> None:
    """Else each new process of a worker compiles it anew, for seconds."""
    found = []
    for path in WORKER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    text = ast.unparse(decorator)
                    if "njit" in text or "vectorize" in text:
                        found.append(node.name)
                        assert "cache=True" in text, f"{path.name}: {node.name}"
    assert len(found) > 10


def calls(monkeypatch: pytest.MonkeyPatch, room: Any, place: Any, name: str) -> list[list[Any]]:
    """The types with which a compiled function is called from now on; a type that is another is compiled anew."""
    honest, seen = getattr(room, name), []

    def call(*args: Any) -> Any:
        seen.append([typeof(argument) for argument in args])
        return honest(*args)

    monkeypatch.setattr(room, name, call)
    if place is not room:
        monkeypatch.setattr(place, name, call)
    return seen


def test_a_training_finds_the_usual_labels_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = calls(monkeypatch, labels, training, "rolling_deviation")
    training.handler.warm_up()
    sample = next(sample for sample in SAMPLES if sample.symbol == "EURUSD")
    for _ in ("parsed", "mapped"):
        bars = load(sample.path, "x", "EURUSD", "1h", "1h", digest="00", cache_dir=tmp_path).bars
        labels.label(bars, Labels(scale="volatility"))
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]


def test_a_backtest_finds_the_kernel_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = calls(monkeypatch, backtest, backtest, "_kernel")
    backtesting.handler.warm_up()
    rows = np.stack([np.linspace(1.0, 2.0, 50)] * 4)
    rows.flags.writeable = False  # as bars that are mapped from a file may be
    backtest.simulate(*rows, np.zeros(50, dtype=np.int64), backtest.Rules(100_000, 1, 0, 0, True, 0, 0.1, 5))
    assert len(seen) == 2
    assert seen[0] == seen[1]
