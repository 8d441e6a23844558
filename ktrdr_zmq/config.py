"""Settings: command line over environment over YAML file over default, checked once and then frozen.

`SETTINGS` is the one table of what can be set; docs/configuration.md and .env.example are compared with it by a test. Endpoints are
numeric (`ipaddress`): a name is refused, because a resolver that hangs must never stop a worker. Light: no pydantic, and the YAML reader
only if there is a file.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from ktrdr_zmq.errors import ConfigError

DEFAULT_PORT: Final = 5555
BROKER_REQUIRED: Final = "KTRDR_BROKER is required. Example: KTRDR_BROKER=tcp://192.168.1.100:5555, or start a local cluster with: ktrdr up"


class Endpoint(NamedTuple):
    """A broker's address and base port; its four sockets are at the port and the three after it."""

    host: str
    port: int

    def __str__(self) -> str:
        return self.url()

    def url(self, offset: int = 0) -> str:
        """As ZeroMQ wants it; ``offset`` 0 workers, 1 clients, 2 events, 3 bulk."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port + offset}"


def parse_address(text: str, what: str = "address") -> str:
    """Check an IP address.

    Raises
    ------
    ConfigError
        For anything else; names are told to be given as numbers.
    """
    bare = text.strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        hint = "For this machine write 127.0.0.1." if bare.lower() == "localhost" else "Write the number, for example 192.168.1.100."
        raise ConfigError(f"The {what} {text!r} is not a numeric IP address; names are not looked up.", hint=hint) from None


def parse_endpoint(text: str, source: str = "broker address") -> Endpoint:
    """Read ``IP``, ``IP:port`` or ``tcp://IP:port``.

    Raises
    ------
    ConfigError
        When it is none of these.
    """
    rest = text.strip()
    scheme, separator, after = rest.partition("://")
    if separator:
        if scheme != "tcp":
            raise ConfigError(f"The {source} {text!r} must begin with tcp://, not {scheme}://.")
        rest = after
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", rest)
    if bracketed is not None:
        host, port_text = bracketed.group(1), bracketed.group(2) or ""
    elif rest.count(":") > 1:
        host, port_text = rest, ""
    else:
        host, _, port_text = rest.partition(":")
    host = parse_address(host, f"{source}")
    if port_text and not (port_text.isascii() and port_text.isdigit() and 1 <= int(port_text) <= 65_532):
        raise ConfigError(f"The {source} {text!r} has no valid base port: it is between 1 and 65532 (three more follow it).")
    if ipaddress.ip_address(host).is_unspecified:
        raise ConfigError(f"The {source} {text!r} names every address and none; give the broker's own.")
    return Endpoint(host, int(port_text) if port_text else DEFAULT_PORT)


# ---------------------------------------------------------------------------------------------------------------- folders


class Folders(NamedTuple):
    """Where a person's files are (XDG base directories)."""

    config: Path
    data: Path
    state: Path
    cache: Path
    runtime: Path


def folders(env: Mapping[str, str] | None = None) -> Folders:
    """The folders of this user; none of them need exist."""
    env = os.environ if env is None else env
    home = Path(env.get("HOME") or "~").expanduser()

    def place(name: str, default: Path) -> Path:
        given = env.get(name, "")
        return (Path(given) if given.startswith("/") else default) / "ktrdr"

    return Folders(
        config=place("XDG_CONFIG_HOME", home / ".config"),
        data=place("XDG_DATA_HOME", home / ".local" / "share"),
        state=place("XDG_STATE_HOME", home / ".local" / "state"),
        cache=place("XDG_CACHE_HOME", home / ".cache"),
        runtime=place("XDG_RUNTIME_DIR", Path("/tmp") / f"ktrdr-{os.getuid()}"),  # noqa: S108 (made with mode 0700 by its writer)
    )


# ---------------------------------------------------------------------------------------------------------------- the table


class Setting(NamedTuple):
    """One thing that can be set. ``read`` turns text (or a YAML value as text) into the value, or raises ValueError."""

    section: str
    key: str
    variable: str
    read: Callable[[str], Any]
    default: Any
    meaning: str

    @property
    def path(self) -> str:
        return f"{self.section}.{self.key}"


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("is neither true nor false")


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(f"is not between {low:g} and {high:g}")
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(f"is not between {low} and {high}")
        return value

    return read


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    wrong = [name for name in names if not re.fullmatch(r"[a-z][a-z0-9_.-]*", name)]
    if wrong:
        raise ValueError(f"has {wrong[0]!r}, which is no name of a kind")
    return names


def parse_slots(text: str) -> dict[str, int]:
    """Read ``cpu=4,gpu=1``.

    Raises
    ------
    ValueError
        When it is nothing of the kind.
    """
    slots = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        tag, _, count = part.partition("=")
        if tag not in ("cpu", "gpu") or not count.isdigit() or int(count) > 1024:
            raise ValueError(f"has {part!r}; write for example cpu=4,gpu=1")
        slots[tag] = int(count)
    return slots


def _indices(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())


def _choice(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"is none of {', '.join(words)}")
        return text

    return read


SETTINGS: Final = (
    Setting("client", "broker", "KTRDR_BROKER", str, "", "The broker: an IP, IP:port or tcp://IP:port."),
    Setting("client", "data_dir", "KTRDR_DATA_DIR", str, "", "Folder with your own bars, named SYMBOL_TIMEFRAME.csv or .parquet."),
    Setting("client", "strategies", "KTRDR_STRATEGIES", str, "", "Folder with your own strategies, looked in after ./strategies."),
    Setting("client", "submitter", "KTRDR_SUBMITTER", str, "", "Who submits, for fairness between people; user@host if not set."),
    Setting("broker", "bind", "KTRDR_BIND", str, "127.0.0.1", "The one IP that the broker binds."),
    Setting("broker", "base_port", "KTRDR_BASE_PORT", _whole(0, 65_532), DEFAULT_PORT, "First of four ports; 0 takes free ones."),
    Setting("broker", "insecure", "KTRDR_INSECURE", _flag, False, "Serve beyond loopback without encryption or authentication."),
    Setting("broker", "data_dir", "KTRDR_BROKER_DATA_DIR", str, "", "Folder of the database and artifacts."),
    Setting("broker", "fsync", "KTRDR_FSYNC", _flag, True, "Whether a commit waits for the disk; false survives kills, not power cuts."),
    Setting("broker", "ping_interval", "KTRDR_PING_INTERVAL", _number(0.05, 60), 2.0, "Seconds between a worker's heartbeats."),
    Setting(
        "broker", "dead_after", "KTRDR_DEAD_AFTER", _number(0.1, 3600), 10.0, "Silence in seconds after which a worker counts as dead."
    ),
    Setting(
        "broker", "reclaim_max", "KTRDR_RECLAIM_MAX", _number(0.1, 86_400), 900.0, "Longest wait for a silent worker's return, in seconds."
    ),
    Setting(
        "broker", "retention_days", "KTRDR_RETENTION_DAYS", _number(0.01, 36_500), 30.0, "Days for which ended jobs are kept; models stay."
    ),
    Setting("broker", "max_queued_jobs", "KTRDR_MAX_QUEUED_JOBS", _whole(1, 10_000_000), 200_000, "Jobs that may wait; more are refused."),
    Setting("worker", "id", "KTRDR_WORKER_ID", str, "", "The worker's name; <hostname>-worker if not set."),
    Setting(
        "worker", "kinds", "KTRDR_WORKER_KINDS", _names, (), "Kinds of jobs to take, comma-separated; all that are installed if not set."
    ),
    Setting("worker", "slots", "KTRDR_WORKER_SLOTS", parse_slots, {}, "Jobs at once for each tag, for example cpu=4,gpu=1."),
    Setting("worker", "gpus", "KTRDR_WORKER_GPUS", _indices, (), "Indices of the GPUs to use, comma-separated; all if not set."),
    Setting("worker", "threads", "KTRDR_WORKER_THREADS", _whole(0, 1024), 0, "Threads for each job; 0 leaves it to the job."),
    Setting("worker", "simulate_gpu", "KTRDR_SIMULATE_GPU", _flag, False, "Offer a gpu slot without a GPU, for trying things out."),
    Setting("worker", "state_dir", "KTRDR_WORKER_STATE_DIR", str, "", "Folder of the worker's id, unsent results, cache and logs."),
    Setting("log", "level", "KTRDR_LOG_LEVEL", _choice("debug", "info", "warning", "error"), "info", "How much the daemons log."),
    Setting("log", "format", "KTRDR_LOG_FORMAT", _choice("text", "json", "journald"), "text", "Form of the daemons' log lines."),
)

CONFIG_VARIABLE: Final = "KTRDR_CONFIG"

REPLACED: Final = {
    "USE_REMOTE_BACKTEST_SERVICE": "backtests always run on workers; there is nothing to switch on",
    "REMOTE_BACKTEST_SERVICE_URL": "set KTRDR_BROKER to the broker's address",
    "USE_TRAINING_HOST_SERVICE": "training always runs on workers, on a GPU first",
    "TRAINING_HOST_SERVICE_URL": "set KTRDR_BROKER to the broker's address",
    "KTRDR_API_URL": "set KTRDR_BROKER to the broker's address",
    "WORKER_ENDPOINT_URL": "a worker connects to the broker and needs no address of its own",
    "WORKER_PORT": "a worker listens on no port",
    "WORKER_ID": "it is called KTRDR_WORKER_ID now",
}
"""Variables of the earlier system, and what became of them."""


def replaced_variables(env: Mapping[str, str] | None = None) -> list[str]:
    """A line for each variable of the earlier system that is still set."""
    env = os.environ if env is None else env
    return [f"{name} is set but not used: {text}." for name, text in REPLACED.items() if name in env]


class Settings:
    """Everything that can be set, with where each value came from.

    Attributes
    ----------
    values : dict of str to object
        By path, for example ``broker.base_port``.
    sources : dict of str to str
        By path: ``command line``, the variable's name, the file's name, or ``default``.
    file : Path or None
        The file that was read.
    """

    def __init__(self, values: dict[str, Any], sources: dict[str, str], file: Path | None) -> None:
        self.values = values
        self.sources = sources
        self.file = file

    def __getitem__(self, path: str) -> Any:
        return self.values[path]


def load_settings(given: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Read the environment and the file.

    Parameters
    ----------
    given : mapping, optional
        Values from the command line by path; None means "not given".
    env : mapping, optional
        The environment; the process's own by default.

    Raises
    ------
    ConfigError
        With every mistake at once: unknown keys, values that cannot be.
    """
    settings, problems = read_settings(given, env)
    if problems:
        raise ConfigError("The configuration is wrong:\n  " + "\n  ".join(problems), hint="See what can be set with: ktrdr config show")
    return settings


def read_settings(given: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None) -> tuple[Settings, list[str]]:
    """The settings as far as they can be read, and a line for each mistake; what is mistaken keeps its default. See `load_settings`."""
    env = os.environ if env is None else env
    given = given or {}
    file, from_file, problems = _read_file(env)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        path = setting.path
        values[path], sources[path] = setting.default, "default"
        for text, source in ((env.get(setting.variable), setting.variable), (from_file.get(path), str(file))):
            if text is None or text == "":
                continue
            try:
                values[path], sources[path] = setting.read(text), source
            except ValueError as error:
                problems.append(f"{source}: {path} = {text!r} {_because(error)}")
            break
        if given.get(path) is not None:
            value = given[path]
            try:
                values[path] = setting.read(value) if isinstance(value, str) else value
            except ValueError as error:
                problems.append(f"--{setting.key.replace('_', '-')} {value!r} {_because(error)}")
            sources[path] = "command line"
    return Settings(values, sources, file), problems


def _because(error: ValueError) -> str:
    text = str(error)
    return text if text.startswith(("is ", "has ")) else "is not a number"


def _line(entries: Any, key: object) -> int:
    """The line of a key, as ruamel noted it."""
    return int(entries.lc.key(key)[0]) + 1


def _read_file(env: Mapping[str, str]) -> tuple[Path | None, dict[str, str], list[str]]:
    """The configuration file as texts by path."""
    named = env.get(CONFIG_VARIABLE, "")
    candidates = [Path(named)] if named else [folders(env).config / "config.yaml", Path("/etc/ktrdr/config.yaml")]
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        if named:
            return None, {}, [f"{CONFIG_VARIABLE} names {named}, which is no file."]
        return None, {}, []
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="rt").load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        return file, {}, [f"The configuration file {file} cannot be read: {error}"]
    if document is None:
        return file, {}, []
    if not isinstance(document, dict):
        return file, {}, [f"The configuration file {file} must hold sections: client, broker, worker, log."]
    known = {setting.path for setting in SETTINGS}
    texts: dict[str, str] = {}
    problems: list[str] = []
    for section, entries in document.items():
        if not isinstance(entries, dict):
            problems.append(f"{file}:{_line(document, section)}: {section} must hold settings")
            continue
        for key, value in entries.items():
            path = f"{section}.{key}"
            if path in known:
                texts[path] = _as_text(value)
            else:
                problems.append(f"{file}:{_line(entries, key)}: {path} is no setting{_did_you_mean(path, known)}")
    return file, texts, problems


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    return "" if value is None else str(value)


def _did_you_mean(path: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(path, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


# ---------------------------------------------------------------------------------------------------------------- finding the broker


def up_file(env: Mapping[str, str] | None = None) -> Path:
    """Where a running `ktrdr up` says where it is."""
    return folders(env).runtime / "up.json"


def find_broker(given: str | None = None, env: Mapping[str, str] | None = None, settings: Settings | None = None) -> Endpoint:
    """The broker to talk to: as given, else KTRDR_BROKER, the configuration file, or the running `ktrdr up`.

    Raises
    ------
    ConfigError
        When none is named, or what is named is no numeric endpoint.
    """
    if given:
        return parse_endpoint(given, "broker address")
    settings = settings or load_settings(env=env)
    if settings["client.broker"]:
        return parse_endpoint(settings["client.broker"], settings.sources["client.broker"])
    running = read_up_file(env)
    if running is not None:
        return parse_endpoint(running["broker"], str(up_file(env)))
    raise ConfigError(BROKER_REQUIRED, code="NO_BROKER")


def read_up_file(env: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """What the running `ktrdr up` wrote; None if there is none, or its process is gone."""
    import json

    try:
        document = json.loads(up_file(env).read_text("utf-8"))
        os.kill(int(document["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return document if isinstance(document, dict) and "broker" in document else None
