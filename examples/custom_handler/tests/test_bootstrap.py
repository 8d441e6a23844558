"""A handler is tested like any function: with a body, and a context that writes down what it was told."""

from __future__ import annotations

from typing import Any

import pytest
from ktrdr_bootstrap import handler, largest_drawdown

from ktrdr_worker.handler import Handler, JobError, JobInterrupted


class Context:
    """As much of a `JobContext` as this handler uses."""

    def __init__(self, cancel_after: float = 2.0) -> None:
        self.fractions: list[float] = []
        self.artifacts: dict[str, bytes] = {}
        self._cancel_after = cancel_after

    def check_cancelled(self) -> None:
        if self.fractions and self.fractions[-1] >= self._cancel_after:
            raise JobInterrupted

    def progress(self, fraction: float, **_: Any) -> None:
        self.fractions.append(fraction)

    def add_artifact(self, name: str, source: bytes, media_type: str = "") -> str:
        self.artifacts[name] = source
        return ""


def test_it_keeps_to_the_contract() -> None:
    assert isinstance(handler, Handler)
    assert handler.kind == "bootstrap"
    assert handler.versions == (1, 1)


def test_the_drawdown_of_known_returns() -> None:
    assert largest_drawdown([0.1, 0.1]) == 0.0
    assert largest_drawdown([1.0, -0.5, -0.5, 3.0]) == pytest.approx(0.75)


def test_the_same_seed_gives_the_same_figures() -> None:
    body = {"returns": [0.02, -0.01, 0.03, -0.04], "draws": 1000, "seed": 7}
    first, again = Context(), Context()
    result = handler.run(body, first)
    assert result == handler.run(body, again)
    assert first.artifacts["drawdowns"] == again.artifacts["drawdowns"]
    quantiles = list(result["drawdown"].values())
    assert quantiles == sorted(quantiles)
    assert first.fractions == sorted(first.fractions)
    assert first.fractions[-1] == 1.0
    assert first.artifacts["drawdowns"].count(b"\n") == 1001


def test_it_stops_when_it_is_told_to() -> None:
    context = Context(cancel_after=0.4)
    with pytest.raises(JobInterrupted):
        handler.run({"returns": [0.01, -0.01], "draws": 1000}, context)
    assert context.fractions[-1] == 0.4
    assert context.artifacts == {}


@pytest.mark.parametrize(
    "body", [{}, {"returns": []}, {"returns": [-1.0]}, {"returns": ["a"]}, {"returns": [0.1], "draws": 0}, {"returns": [0.1], "seed": "x"}]
)
def test_a_senseless_body_is_the_submitters_mistake(body: dict[str, Any]) -> None:
    with pytest.raises(JobError):
        handler.run(body, Context())
