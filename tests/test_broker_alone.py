"""The base install: broker, client and command line work where torch, NumPy, pandas, numba and TA-Lib are absent.

`tox -e broker-alone` runs this in an environment that has none of them. Where they are installed, every process started here is kept from
importing them: what passes, passes without.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SCIENCE
from tests.e2e.house import House

pytestmark = pytest.mark.timeout(120)

NO_TRAINING = "No training workers available. Start GPU or CPU training workers."
NO_BACKTESTING = "No workers available for backtesting. Start a backtesting worker."

BLOCKER = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {SCIENCE!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[House]:
    """Processes without the science; one of them may be a broker."""
    folder = tmp_path / "blocker"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER)
    house = House(tmp_path)
    house.env["PYTHONPATH"] = os.pathsep.join((str(folder), house.env["PYTHONPATH"]))
    yield house
    house.close()


def run(house: House, code: str) -> Any:
    """Run a few lines in a fresh interpreter; what they print is JSON."""
    argv = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(argv, env=house.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + house.logs()
    return json.loads(done.stdout)


def test_the_science_is_really_absent(alone: House) -> None:
    """Or else nothing here shows anything."""
    code = f"""
        import importlib, json
        there = []
        for name in {SCIENCE!r}:
            try:
                importlib.import_module(name)
                there.append(name)
            except ModuleNotFoundError as error:
                assert error.name == name
        print(json.dumps(there))
    """
    assert run(alone, code) == []


@pytest.mark.e2e
def test_a_training_is_refused_at_once_with_these_words(alone: House) -> None:
    alone.broker()
    answer = run(
        alone,
        """
        import json, time
        from ktrdr_zmq import Client, NoCapableWorker
        said = {}
        with Client() as client:
            for kind in ("training", "backtesting"):
                begun = time.monotonic()
                try:
                    client.submit(kind, {})
                except NoCapableWorker as refusal:
                    said[kind] = [str(refusal), isinstance(refusal, RuntimeError), time.monotonic() - begun < 2]
            said["workers"] = client.workers()
        print(json.dumps(said))
        """,
    )
    assert answer == {"training": [NO_TRAINING, True, True], "backtesting": [NO_BACKTESTING, True, True], "workers": []}


@pytest.mark.e2e
def test_a_strategy_is_checked_and_submitted_and_refused_by_the_command_line(alone: House) -> None:
    alone.broker()
    command = ("models", "train", "--strategy", "neuro_mean_reversion", "--symbol", "EURUSD", "--timeframe", "1d")
    done = alone.cli(*command)
    assert done.returncode == 3, done.stderr
    assert NO_TRAINING in done.stderr
    assert "Traceback" not in done.stderr
    error = json.loads(alone.cli(*command, "--json").stderr)
    assert (error["error"], error["code"]) == (NO_TRAINING, "NO_CAPABLE_WORKER")


@pytest.mark.e2e
def test_the_command_line_answers(alone: House) -> None:
    assert alone.cli("--help").returncode == 0
    alone.broker()
    status = alone.cli_json("status")
    assert status["schema"] == 1
    assert alone.cli_json("jobs", "list")["jobs"] == []
    assert alone.cli_json("workers", "list")["workers"] == []
    assert alone.cli("strategies", "list").returncode == 0


@pytest.mark.e2e
def test_a_worker_without_the_science_offers_what_needs_none(alone: House) -> None:
    alone.broker()
    alone.worker("light", kinds="echo,noop")
    answer = run(
        alone,
        """
        import json, sys
        from ktrdr_zmq import Client
        with Client() as client:
            result = dict(client.submit("echo", {"a": [1, 2.5, "x", None]}).result(timeout=30))
            kinds = sorted(client.workers()[0].kinds)
        science = {"torch", "numpy", "pandas", "numba", "talib", "plotly", "safetensors"} & sys.modules.keys()
        print(json.dumps([result, kinds, sorted(science)]))
        """,
    )
    assert answer == [{"schema": 1, "a": [1, 2.5, "x", None]}, ["echo", "noop"], []]


@pytest.mark.e2e
def test_a_worker_that_was_asked_to_train_says_what_to_install(alone: House) -> None:
    alone.broker()
    argv = [sys.executable, "-m", "ktrdr_worker", "--id", "hopeful", "--state-dir", str(alone.folder / "hopeful"), "--kinds", "training"]
    done = subprocess.run(argv, env=alone.env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "pip install 'ktrdr-zmq[worker]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_array_in_a_result_asks_for_numpy_by_name(alone: House) -> None:
    code = """
        import json, msgpack
        from ktrdr_zmq.errors import PayloadError
        from ktrdr_zmq.payload import unpack
        try:
            unpack(msgpack.packb(msgpack.ExtType(1, msgpack.packb(["<f8", [1], bytes(8)]))))
        except PayloadError as error:
            print(json.dumps([str(error), error.hint]))
    """
    text, hint = run(alone, code)
    assert "NumPy is not installed" in text
    assert "pip install numpy" in hint


@pytest.mark.skipif(importlib.util.find_spec("numpy") is not None, reason="the science is installed here")
def test_nothing_of_the_base_install_brings_the_science_along() -> None:
    assert [name for name in SCIENCE if importlib.util.find_spec(name) is not None] == []
