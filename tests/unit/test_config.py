"""Settings: where each value comes from, and every mistake at once."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_zmq.config import (
    BROKER_REQUIRED,
    DEFAULT_PORT,
    REPLACED,
    SETTINGS,
    Endpoint,
    find_broker,
    folders,
    load_settings,
    parse_address,
    parse_endpoint,
    parse_slots,
    replaced_variables,
    up_file,
)
from ktrdr_zmq.errors import EXIT_USAGE, ConfigError


def written(tmp_path: Path, text: str) -> dict[str, str]:
    """An environment whose configuration file has this text."""
    file = tmp_path / "config.yaml"
    file.write_text(text, "utf-8")
    return {"KTRDR_CONFIG": str(file), "HOME": str(tmp_path)}


def mistakes(env: dict[str, str], **given: object) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        load_settings({path.replace("__", "."): value for path, value in given.items()}, env)
    assert refusal.value.exit_code == EXIT_USAGE
    assert "ktrdr config show" in refusal.value.hint
    return refusal.value.message.splitlines()[1:]


# ---------------------------------------------------------------- precedence


def test_without_anything_every_setting_has_its_default(tmp_path: Path) -> None:
    settings = load_settings(env={"HOME": str(tmp_path)})
    assert settings.values == {setting.path: setting.default for setting in SETTINGS}
    assert set(settings.sources.values()) == {"default"}
    assert settings.file is None


@pytest.mark.parametrize("given, variable, in_file", list(itertools.product([True, False], repeat=3)))
def test_command_line_before_environment_before_file_before_default(tmp_path: Path, given: bool, variable: bool, in_file: bool) -> None:
    env = written(tmp_path, "broker: {base_port: 3000}\n" if in_file else "")
    env |= {"KTRDR_BASE_PORT": "2000"} if variable else {}
    settings = load_settings({"broker.base_port": "1000" if given else None}, env)
    expected = (DEFAULT_PORT, "default")
    if in_file:
        expected = (3000, env["KTRDR_CONFIG"])
    if variable:
        expected = (2000, "KTRDR_BASE_PORT")
    if given:
        expected = (1000, "command line")
    assert (settings["broker.base_port"], settings.sources["broker.base_port"]) == expected


def test_an_empty_variable_is_none() -> None:
    settings = load_settings(env={"KTRDR_BASE_PORT": "", "HOME": "/nowhere"})
    assert settings.sources["broker.base_port"] == "default"


def test_a_value_of_the_command_line_may_be_no_text() -> None:
    settings = load_settings({"broker.insecure": True, "broker.fsync": False}, {"HOME": "/nowhere"})
    assert (settings["broker.insecure"], settings["broker.fsync"]) == (True, False)


def test_every_setting_can_be_given_in_the_file_and_in_the_environment(tmp_path: Path) -> None:
    """With its own default written out, so that nothing in the table cannot be said."""

    def text(value: object) -> str:
        return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value or "")

    env = {setting.variable: text(setting.default) for setting in SETTINGS} | {"HOME": str(tmp_path)}
    assert load_settings(env=env).values == load_settings(env={"HOME": str(tmp_path)}).values
    variables = [setting.variable for setting in SETTINGS]
    assert len(set(variables)) == len(variables)
    assert all(variable.startswith("KTRDR_") for variable in variables)


# ---------------------------------------------------------------- values


FLAGS = {"1": True, "true": True, "YES": True, "on": True, "0": False, "False": False, "no": False, "off": False}


@pytest.mark.parametrize("text, value", list(FLAGS.items()))
def test_flags(text: str, value: bool) -> None:
    assert load_settings(env={"KTRDR_INSECURE": text, "HOME": "/nowhere"})["broker.insecure"] is value


@pytest.mark.parametrize(
    "variable, text, why",
    [
        ("KTRDR_INSECURE", "perhaps", "is neither true nor false"),
        ("KTRDR_BASE_PORT", "high", "is not a number"),
        ("KTRDR_BASE_PORT", "65533", "is not between 0 and 65532"),
        ("KTRDR_BASE_PORT", "-1", "is not between 0 and 65532"),
        ("KTRDR_PING_INTERVAL", "0.01", "is not between 0.05 and 60"),
        ("KTRDR_PING_INTERVAL", "nan", "is not between 0.05 and 60"),
        ("KTRDR_DEAD_AFTER", "inf", "is not between 0.1 and 3600"),
        ("KTRDR_WORKER_KINDS", "training,Back testing", "'Back testing'"),
        ("KTRDR_WORKER_SLOTS", "cpu=many", "cpu=4,gpu=1"),
        ("KTRDR_WORKER_SLOTS", "tpu=1", "'tpu=1'"),
        ("KTRDR_WORKER_GPUS", "0,first", "is not a number"),
        ("KTRDR_LOG_LEVEL", "loud", "debug, info, warning, error"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_source_and_the_reason(variable: str, text: str, why: str) -> None:
    (line,) = mistakes({variable: text, "HOME": "/nowhere"})
    assert line.strip().startswith(f"{variable}: ")
    assert repr(text) in line
    assert why in line


def test_lists_may_be_written_as_text_or_as_yaml(tmp_path: Path) -> None:
    in_yaml = written(tmp_path, "worker:\n  kinds: [training, echo]\n  slots: {cpu: 4, gpu: 1}\n  gpus: [0, 2]\n")
    in_text = {"KTRDR_WORKER_KINDS": " training , echo ", "KTRDR_WORKER_SLOTS": "cpu=4, gpu=1", "KTRDR_WORKER_GPUS": "0, 2", "HOME": "/"}
    for env in (in_yaml, in_text):
        settings = load_settings(env=env)
        assert settings["worker.kinds"] == ("training", "echo")
        assert settings["worker.slots"] == {"cpu": 4, "gpu": 1}
        assert settings["worker.gpus"] == (0, 2)


@pytest.mark.parametrize("text", ["cpu", "cpu=", "cpu=-1", "cpu=1025", "cpu=1.5", "cpu=1;gpu=1", "=1"])
def test_slots_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="write for example"):
        parse_slots(text)


# ---------------------------------------------------------------- every mistake at once


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    env = written(tmp_path, "broker:\n  base_prot: 5555\n  fsync: maybe\nfoo:\n  bar: 1\nworker: 3\n")
    env |= {"KTRDR_PING_INTERVAL": "soon", "KTRDR_LOG_FORMAT": "xml"}
    lines = mistakes(env, broker__dead_after="never")
    text = "\n".join(lines)
    assert len(lines) == 7
    parts = [":2: broker.base_prot is no setting; did you mean broker.base_port?", "broker.fsync", ":5: foo.bar is no setting"]
    parts += [":6: worker must hold settings", "KTRDR_PING_INTERVAL", "KTRDR_LOG_FORMAT", "--dead-after 'never'"]
    assert [part for part in parts if part not in text] == []


def test_a_wrong_variable_is_told_even_if_the_command_line_overrides_it() -> None:
    assert len(mistakes({"KTRDR_BASE_PORT": "x", "HOME": "/nowhere"}, broker__base_port="1000")) == 1


@pytest.mark.parametrize("text", ["broker: [", "a: 1\na: 2\n", "broker:\n  fsync: true\n  fsync: false\n", "\tx: 1\n"])
def test_a_file_that_is_no_yaml_or_has_a_key_twice(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(env=written(tmp_path, text))


@pytest.mark.parametrize("text", ["- broker\n", "5555\n", "just words\n"])
def test_a_file_without_sections(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="must hold sections"):
        load_settings(env=written(tmp_path, text))


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        load_settings(env={"KTRDR_CONFIG": str(tmp_path / "none.yaml")})


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    settings = load_settings(env=written(tmp_path, "# nothing yet\n"))
    assert settings.file is not None
    assert set(settings.sources.values()) == {"default"}


def test_a_persons_file_is_found_without_being_named(tmp_path: Path) -> None:
    place = tmp_path / "config" / "ktrdr"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text("log: {level: debug}\n")
    settings = load_settings(env={"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)})
    assert settings["log.level"] == "debug"
    assert settings.sources["log.level"] == str(place / "config.yaml")


# ---------------------------------------------------------------- endpoints


@pytest.mark.parametrize(
    "text, host, port",
    [
        ("192.168.1.100", "192.168.1.100", DEFAULT_PORT),
        ("192.168.1.100:6000", "192.168.1.100", 6000),
        ("tcp://192.168.1.100:6000", "192.168.1.100", 6000),
        (" tcp://127.0.0.1 ", "127.0.0.1", DEFAULT_PORT),
        ("::1", "::1", DEFAULT_PORT),
        ("[::1]", "::1", DEFAULT_PORT),
        ("[fe80::1]:6000", "fe80::1", 6000),
        ("tcp://[2001:db8:0:0:0:0:0:1]:1", "2001:db8::1", 1),
        ("10.0.0.1:65532", "10.0.0.1", 65532),
    ],
)
def test_addresses_of_a_broker(text: str, host: str, port: int) -> None:
    assert parse_endpoint(text) == Endpoint(host, port)


@pytest.mark.parametrize(
    "text, why",
    [
        ("localhost:5555", "not a numeric IP"),
        ("broker.lan", "names are not looked up"),
        ("tcp://*:5555", "not a numeric IP"),
        ("eth0", "not a numeric IP"),
        ("ipc:///tmp/x", "must begin with tcp://"),
        ("http://10.0.0.1", "must begin with tcp://"),
        ("10.0.0.1:0", "no valid base port"),
        ("10.0.0.1:65533", "no valid base port"),
        ("10.0.0.1:port", "no valid base port"),
        ("10.0.0.1:\u0661\u0662", "no valid base port"),
        ("0.0.0.0:5555", "names every address and none"),
        ("[::]:5555", "names every address and none"),
        ("10.0.0", "not a numeric IP"),
        ("", "not a numeric IP"),
        ("tcp://", "not a numeric IP"),
        ("10.0.0.1:5555/x", "no valid base port"),
    ],
)
def test_addresses_that_are_none(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_endpoint(text)


def test_localhost_is_told_its_number() -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_address("LocalHost")
    assert "127.0.0.1" in refusal.value.hint


@given(address=st.ip_addresses(), port=st.integers(1, 65_532))
def test_every_endpoint_can_be_written_and_read_again(address: object, port: int) -> None:
    endpoint = Endpoint(str(address), port)
    if endpoint.host in ("0.0.0.0", "::"):  # refused, see above
        return
    assert parse_endpoint(str(endpoint)) == endpoint
    assert endpoint.url(3).endswith(f":{port + 3}")


# ---------------------------------------------------------------- finding the broker


def test_the_broker_that_is_named_comes_first(tmp_path: Path) -> None:
    env = {"KTRDR_BROKER": "10.0.0.2", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    assert find_broker("10.0.0.1:7000", env) == Endpoint("10.0.0.1", 7000)
    assert find_broker(None, env) == Endpoint("10.0.0.2", DEFAULT_PORT)
    assert find_broker(None, written(tmp_path, "client: {broker: 10.0.0.3}\n")) == Endpoint("10.0.0.3", DEFAULT_PORT)


def test_a_running_up_is_found_and_a_dead_one_is_not(tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    file = up_file(env)
    file.parent.mkdir(parents=True)
    broker = "tcp://127.0.0.1:6000"
    file.write_text(json.dumps({"broker": broker, "pid": os.getpid()}))
    assert find_broker(None, env) == Endpoint("127.0.0.1", 6000)
    for leftover in ({"broker": broker, "pid": 2**22 + 1}, {"broker": broker}, {"pid": os.getpid()}, [], "x"):
        file.write_text(json.dumps(leftover))
        with pytest.raises(ConfigError):
            find_broker(None, env)


def test_without_any_broker_a_person_is_told_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        find_broker(None, {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)})
    assert refusal.value.message == BROKER_REQUIRED
    assert BROKER_REQUIRED.startswith("KTRDR_BROKER is required. Example: KTRDR_BROKER=tcp://192.168.1.100:5555")
    assert "ktrdr up" in BROKER_REQUIRED


def test_a_wrong_address_names_the_variable_it_came_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="KTRDR_BROKER"):
        find_broker(None, {"KTRDR_BROKER": "localhost", "HOME": str(tmp_path)})


# ---------------------------------------------------------------- folders, and what was before


def test_folders_follow_the_xdg_specification(tmp_path: Path) -> None:
    plain = folders({"HOME": str(tmp_path)})
    assert plain.config == tmp_path / ".config" / "ktrdr"
    assert plain.data == tmp_path / ".local" / "share" / "ktrdr"
    assert plain.state == tmp_path / ".local" / "state" / "ktrdr"
    assert plain.cache == tmp_path / ".cache" / "ktrdr"
    moved = folders({"HOME": str(tmp_path), "XDG_DATA_HOME": "/data", "XDG_STATE_HOME": "relative/is/ignored"})
    assert moved.data == Path("/data/ktrdr")
    assert moved.state == plain.state


def test_nothing_is_made_by_asking(tmp_path: Path) -> None:
    folders({"HOME": str(tmp_path)})
    load_settings(env={"HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_variables_of_the_earlier_system_are_told_what_became_of_them() -> None:
    assert replaced_variables({}) == []
    lines = replaced_variables(dict.fromkeys(REPLACED, "x"))
    assert len(lines) == len(REPLACED)
    assert any("KTRDR_BROKER" in line for line in lines)
    assert not set(REPLACED) & {setting.variable for setting in SETTINGS}
