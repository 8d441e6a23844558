"""Makes the mistakes, through the command line with a client that has no broker or through a worker's handler; returns what is said."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from ktrdr_cli import common
from ktrdr_cli.main import main
from ktrdr_worker.jobs.training import handler as training
from ktrdr_zmq.errors import KtrdrError
from ktrdr_zmq.samples import find_sample
from tests.mistakes.data import InData
from tests.mistakes.parameters import InParameters
from tests.mistakes.strategies import MINE, InStrategy
from tests.unit.cli.fake import FakeClient, job, trained
from tests.unit.trading.test_jobs import FAST, FILE, Context, body


class Told(NamedTuple):
    """What a mistake led to: the exit code, the message, the hint, and what was left behind (files, or anything submitted)."""

    code: int
    message: str
    hint: str
    left: list[str]


def in_strategy(mistake: InStrategy, folder: Path) -> Told:
    """Train with a strategy that has the mistake."""
    assert mistake.right in MINE
    (folder / "mine.yaml").write_text(MINE.replace(mistake.right, mistake.wrong, 1))
    told = _told("models train --strategy mine.yaml", folder, ["mine.yaml"])
    head, *problems = told.message.splitlines()
    assert head == "The strategy mine.yaml is not valid (1 problem):", told.message
    return told._replace(message="\n".join(problems).strip())


def in_parameters(mistake: InParameters, folder: Path) -> Told:
    """Say the words; there is a model, and a file that must stay as it is."""
    (folder / "mine.yaml").write_text(MINE)
    told = _told(mistake.words, folder, ["mine.yaml"])
    assert (folder / "mine.yaml").read_text() == MINE
    return told


def _told(words: str, folder: Path, before: list[str]) -> Told:
    client = FakeClient()
    client.put(job(1, name="neuro_mean_reversion"), trained())
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(common, "connect", client.connect), mock.patch.dict(os.environ, {"HOME": str(folder / "home")}),
        contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
    ):  # fmt: skip
        code = main([*words.split(), "--json"])
    assert not out.getvalue()
    error = json.loads(err.getvalue())
    left = [name for name in sorted(os.listdir(folder)) if name not in before] + [f"submitted {one.kind}" for one in client.requests]
    return Told(code, error["error"], error["hint"] or "", left)


def in_data(mistake: InData, folder: Path) -> Told:
    """Train on a file that has the mistake, as the worker does it; a handler that raises makes a job that failed, which exits with 1."""
    made = mistake.make(LINES)
    asked = dict(mistake.asked or {})
    source = asked.pop("source", "1h")
    asked["overrides"] = {**FAST, **asked.get("overrides", {})}
    inputs = folder / "inputs"
    inputs.mkdir()
    context = Context(inputs, data=made if isinstance(made, bytes) else "".join(f"{line}\n" for line in made).encode())
    file = {**FILE, "timeframe": source, "filename": f"EURUSD_{source}.csv"}
    try:
        training.run(body(**asked, data=[file]), context)
    except KtrdrError as error:
        left = [
            *context.artifacts,
            *(["a checkpoint"] if context.checkpoint else []),
            *(str(path) for path in _files(folder, context.cache_dir)),
        ]
        left.remove(str(inputs / "data"))
        return Told(1, error.message, error.hint or "", left)
    raise AssertionError("nobody said anything")


def _files(folder: Path, kept: Path) -> Iterator[Path]:
    """All but what a worker keeps of a good file."""
    return (path for path in folder.rglob("*") if path.is_file() and kept not in path.parents)


SAMPLE = find_sample("EURUSD", "1h")
assert SAMPLE is not None
LINES = SAMPLE.path.read_text(encoding="utf-8").splitlines()
