"""Runs the command line inside the test, with a client that has no broker."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ktrdr_cli import common
from ktrdr_cli.main import main
from tests.unit.cli.fake import FakeClient


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Ktrdr = Callable[..., Ran]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The client that every command gets."""
    client = FakeClient()
    monkeypatch.setattr(common, "connect", client.connect)
    return client


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl+C reaches the process, also where the tests were started in the background of a shell, which ignores it for them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def ktrdr(fake: FakeClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ktrdr:
    """Run ``ktrdr`` with words, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*words: str) -> Ran:
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        assert "Traceback (most recent call last)" not in err
        return Ran(code, out, err)

    return run
