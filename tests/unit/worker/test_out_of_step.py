"""A child that is out of step with its agent is replaced: the job that it has lost sight of would wait for ever."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from ktrdr_worker import pipe
from ktrdr_worker.executor import Executor


class Child:
    """As much of a child as its end needs."""

    def __init__(self, *tokens: int) -> None:
        self.jobs = deque(type("Job", (), {"token": token})() for token in tokens)
        self.killed = False


def test_an_end_that_is_not_the_first_jobs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    killed: list[Any] = []
    executor = Executor.__new__(Executor)
    monkeypatch.setattr(executor, "_kill", lambda child: (killed.append(child), setattr(child, "killed", True)), raising=False)
    child = Child(1, 2)
    for _ in range(3):
        executor._ended(child, pipe.Ended(2, "done", 0.0, b"", [], None, ""))  # type: ignore[arg-type]
    assert killed == [child]
    assert len(child.jobs) == 2, "what became of them is told when it is gone"
    assert caplog.text.count("out of step") == 1
