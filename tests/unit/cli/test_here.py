"""Commands that need no broker: strategies, data, config; the daemons' options; and the parts that `up` and `down` stand on."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ktrdr_broker.__main__ import parser as broker_parser
from ktrdr_cli import daemons
from ktrdr_cli.cluster import workers_of
from ktrdr_cli.local import LocalRefused, Stop, free_port, running, sole
from ktrdr_cli.main import cli
from ktrdr_worker.__main__ import parser as worker_parser
from ktrdr_zmq.config import SETTINGS, up_file
from tests.unit.cli.conftest import Ktrdr


def test_strategies(ktrdr: Ktrdr, tmp_path: Path) -> None:
    assert "neuro_mean_reversion" in ktrdr("strategies", "list").out
    text = ktrdr("strategies", "show", "neuro_mean_reversion").out
    assert ktrdr("strategies", "show", "neuro_mean_reversion", "--json").json["text"] == text
    assert ktrdr("strategies", "validate", "neuro_mean_reversion").code == 0
    assert ktrdr("strategies", "copy", "neuro_mean_reversion", "mine").code == 0
    assert (tmp_path / "strategies" / "mine.yaml").read_text() == text.replace("name: neuro_mean_reversion", "name: mine")
    for name, called in (("Mine.v-2", "Mine.v-2"), ("null", "neuro_mean_reversion"), ("2nd", "neuro_mean_reversion")):
        assert ktrdr("strategies", "copy", "neuro_mean_reversion", name).code == 0
        assert ktrdr("strategies", "validate", name, "--json").json["strategies"][0]["name"] == called
    assert ktrdr("strategies", "copy", "neuro_mean_reversion").code == 0
    assert (tmp_path / "strategies" / "neuro_mean_reversion.yaml").read_text() == text
    ran = ktrdr("strategies", "copy", "neuro_mean_reversion", "mine")
    assert ran.code == 2
    assert "--force" in ran.err
    assert ktrdr("strategies", "copy", "neuro_mean_reversion", "mine", "--force").code == 0
    assert "./strategies" in ktrdr("strategies", "list").out
    assert ktrdr("strategies", "copy", "neuro_mean_reversion", "other/x.yaml").code == 0
    assert (tmp_path / "other" / "x.yaml").is_file()


def test_a_strategy_with_mistakes_shows_all(ktrdr: Ktrdr, tmp_path: Path) -> None:
    text = ktrdr("strategies", "show", "neuro_mean_reversion").out
    (tmp_path / "bad.yaml").write_text(text.replace("training:", "trainning:").replace("indicators:", "indicatorz:"))
    ran = ktrdr("strategies", "validate", "bad.yaml", "neuro_mean_reversion")
    assert ran.code == 2
    assert "trainning" in ran.err
    assert "indicatorz" in ran.err
    assert "bad.yaml:" in ran.err
    assert "neuro_mean_reversion is valid." in ran.out
    ran = ktrdr("strategies", "validate", "bad.yaml", "--json")
    assert ran.json["strategies"][0]["valid"] is False
    assert json.loads(ran.err)["code"] == "STRATEGY"
    assert ktrdr("strategies", "validate", "neuro_mean_reversion", "--set", "training.epochz=1").code == 2
    assert "NOT VALID" not in ktrdr("strategies", "list").out


def test_indicators(ktrdr: Ktrdr) -> None:
    listed = ktrdr("strategies", "indicators", "--json").json["indicators"]
    assert {"rsi", "macd", "ichimoku"} <= {one["name"] for one in listed}
    assert ktrdr("strategies", "indicators", "--quiet").out.split() == [one["name"] for one in listed]
    assert "Relative strength index" in ktrdr("strategies", "indicators").out
    shown = ktrdr("strategies", "indicators", "adx", "--json").json
    assert (shown["outputs"], shown["bars_before"], shown["unstable"]) == (["adx", "plus_di", "minus_di"], 27, True)
    assert shown["parameters"]["period"] == {"default": 14, "meaning": "Bars to look back over.", "from": 2, "to": 5000}
    text = ktrdr("strategies", "indicators", "bbands").out
    assert "{type: bbands, period: 20, deviations: 2.0, average: sma}" in text
    assert "sma ema wma" in text
    assert "It has no parameters." in ktrdr("strategies", "indicators", "obv").out
    ran = ktrdr("strategies", "indicators", "willr")
    assert ran.code == 2
    assert "did you mean williams_r?" in ran.err


def test_help_does_not_load_the_catalogue() -> None:
    code = "import sys; from ktrdr_cli.main import main\ntry: main()\nfinally: print('ktrdr_zmq.strategy.catalogue' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "strategies", "--help"], capture_output=True, text=True, timeout=50, check=False)
    assert "indicators" in done.stdout
    assert done.stdout.endswith("False\n"), done.stderr


def test_data(ktrdr: Ktrdr, tmp_path: Path) -> None:
    (tmp_path / "GBPUSD_4h.csv").write_text("time,open\n")
    ran = ktrdr("data", "list", "--data-dir", str(tmp_path))
    assert ran.out.index("GBPUSD") < ran.out.index("EURUSD")
    found = ktrdr("data", "list", "--json").json["data"]
    assert {(one["symbol"], one["timeframe"]) for one in found} == {("EURUSD", "1h"), ("SP500", "1d")}
    assert ktrdr("data", "list", "--data-dir", "/nowhere").code == 2
    (tmp_path / "GONE_1h.csv").symlink_to(tmp_path / "nothing.csv")
    (tmp_path / "FOLDER_1h.csv").mkdir()
    (tmp_path / "ODD_7x.csv").write_text("time,open\n")
    found = ktrdr("data", "list", "--data-dir", str(tmp_path), "--json").json["data"]
    assert [one["symbol"] for one in found if one["origin"] == "data-dir"] == ["GBPUSD"]


def test_config_show(ktrdr: Ktrdr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRDR_BROKER", "10.0.0.7")
    monkeypatch.setenv("WORKER_PORT", "1")
    ran = ktrdr("config", "show")
    assert "WORKER_PORT" in ran.out
    document = ktrdr("config", "show", "--json").json
    assert [entry["path"] for entry in document["settings"]] == [setting.path for setting in SETTINGS]
    entry = next(entry for entry in document["settings"] if entry["path"] == "client.broker")
    assert (entry["value"], entry["source"]) == ("10.0.0.7", "KTRDR_BROKER")
    assert document["broker"] == "tcp://10.0.0.7:5555"
    assert document["folders"]["up_file"] == str(up_file())


def test_config_show_shows_the_settings_with_their_mistakes(ktrdr: Ktrdr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KTRDR_BASE_PORT", "many")
    monkeypatch.setenv("KTRDR_BROKER", "some.host")
    monkeypatch.setenv("KTRDR_CONFIG", str(tmp_path / "nothing.yaml"))
    ran = ktrdr("config", "show")
    assert ran.code == 2
    assert "broker.base_port" in ran.out
    for word in ("broker.base_port = 'many'", "some.host", "nothing.yaml"):
        assert word in ran.err, word
    assert len(ktrdr("config", "show", "--json").json["problems"]) == 3
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    for words in (("up",), ("up", "-d")):
        assert ktrdr(*words).code == 2


# ---------------------------------------------------------------------------------------------------------------- daemons


@pytest.mark.parametrize("parser, words", [(broker_parser, "broker"), (worker_parser, "worker")])
def test_the_daemons_options_are_the_command_lines(parser: object, words: str) -> None:
    assert callable(parser)
    made: argparse.ArgumentParser = parser()
    theirs = {option for action in made._actions for option in action.option_strings} - {"-h", "--help", "--version", "--broker"}
    group = cli.get_command(click.Context(cli), words)
    assert isinstance(group, click.Group)
    run = group.get_command(click.Context(group), "run")
    assert run is not None
    assert {option for param in run.params for option in param.opts} == theirs


def test_options_are_passed_on(ktrdr: Ktrdr, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def record(words: list[str]) -> int:
        given.append(words)
        return 3

    monkeypatch.setattr("ktrdr_broker.__main__.main", record)
    monkeypatch.setattr("ktrdr_worker.__main__.main", record)
    assert ktrdr("broker", "run", "--base-port", "0", "--insecure", "--no-fsync", "--ready-fd", "7").code == 3
    assert ktrdr("worker", "run", "--broker", "10.0.0.7", "--id", "-odd", "--handlers", "a=b:c", "--handlers", "d=e:f", "--quiet").code == 3
    broker, worker = given
    options = broker_parser().parse_args(broker)
    assert (options.base_port, options.insecure, options.fsync, options.ready_fd) == ("0", True, False, 7)
    parsed = worker_parser().parse_args(worker)
    assert (parsed.broker, parsed.id, parsed.handlers, parsed.log_level) == ("10.0.0.7", "-odd", ["a=b:c", "d=e:f"], "warning")
    assert daemons.__doc__


# ---------------------------------------------------------------------------------------------------------------- up and down


def test_ports_in_use_are_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        if port < 65_000:
            taken.listen()
            assert free_port(port - 1) > port


def test_there_is_one_local_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    assert running() is None
    with sole() as publish:
        assert running() == {}
        with pytest.raises(LocalRefused, match="being started"), sole():
            pass
        publish({"broker": "tcp://127.0.0.1:5555", "pid": os.getpid(), "data_dir": "/data"})
        assert running() == {"broker": "tcp://127.0.0.1:5555", "pid": os.getpid(), "data_dir": "/data"}
        assert stat.S_IMODE(up_file().parent.stat().st_mode) == 0o700
        with pytest.raises(LocalRefused, match="5555") as caught, sole():
            pass
        assert "ktrdr down" in caught.value.hint
        assert caught.value.exit_code == 3
    assert not up_file().exists()
    assert running() is None


def test_a_second_up_and_a_down_without_one(ktrdr: Ktrdr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    assert ktrdr("down", "--json").json == {"schema": 1, "stopped": False}
    with sole() as publish:
        publish({"broker": "tcp://127.0.0.1:5555", "pid": os.getpid(), "data_dir": "/data"})
        for words in (("up",), ("up", "--detach")):
            ran = ktrdr(*words)
            assert ran.code == 3
            assert "ktrdr down" in ran.err
            assert "5555" in ran.err


def test_the_first_signal_asks_and_the_second_hurries() -> None:
    with Stop() as stop:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            stop.wait(5)
        stop.ready()
        hurried: list[bool] = []
        stop.hurry = lambda: hurried.append(True)
        assert not stop.wait(0.0)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)
        assert hurried == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
        assert hurried == [True]


def test_workers_share_the_processors() -> None:
    assert workers_of(0) == []
    assert workers_of(1) == [{"id": "worker-1"}]
    assert [one["id"] for one in workers_of(3)] == ["worker-1", "worker-2", "worker-3"]
    assert all(one["slots"].startswith("cpu=") for one in workers_of(3)[1:])
