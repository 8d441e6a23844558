"""``ktrdr-broker``, ``python -m ktrdr_broker`` and ``ktrdr broker run``: options, signals, and words for systemd."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import sys
from pathlib import Path

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.server import BrokerServer, ServerSettings
from ktrdr_zmq.config import Settings, folders, load_settings, parse_address, replaced_variables
from ktrdr_zmq.errors import ConfigError, KtrdrError
from ktrdr_zmq.logs import set_up_logging
from ktrdr_zmq.notify import ReadyLine, notify, watchdog_interval
from ktrdr_zmq.version import __version__

log = logging.getLogger("ktrdr_broker")


def parser() -> argparse.ArgumentParser:
    """The command line of the broker."""
    made = argparse.ArgumentParser(prog="ktrdr-broker", description="The central broker: keeps jobs, and gives them to workers.")
    made.add_argument("--bind", metavar="IP", help="the one IP to serve on (default 127.0.0.1)")
    made.add_argument("--base-port", metavar="P", help="first of four ports (default 5555); 0 takes free ones")
    made.add_argument("--data-dir", metavar="D", help="folder of the database and artifacts")
    made.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="allow --bind beyond loopback: no encryption, and whoever reaches the ports is trusted",
    )
    made.add_argument(
        "--no-fsync", dest="fsync", action="store_false", default=None, help="do not wait for the disk: survives kills, not power cuts"
    )
    made.add_argument(
        "--restored", action="store_true", help="the database is an older copy, put there on purpose: give up what the newer one knew"
    )
    made.add_argument("--ready-fd", type=int, default=-1, metavar="N", help="write a JSON line to this descriptor when ready")
    made.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    made.add_argument("--log-format", choices=("text", "json", "journald"))
    made.add_argument("--version", action="version", version=f"ktrdr-broker {__version__}")
    return made


def server_settings(settings: Settings) -> ServerSettings:
    """Check what belongs together.

    Raises
    ------
    ConfigError
        For a bind beyond loopback without the flag, and for intervals that contradict each other.
    """
    bind = parse_address(settings["broker.bind"], "bind address")
    if not ipaddress.ip_address(bind).is_loopback and not settings["broker.insecure"]:
        raise ConfigError(
            f"Binding {bind} makes the broker reachable from other machines.",
            hint="Add --insecure if the network is trusted: there is no encryption, and whoever reaches the ports can run jobs.",
        )
    if settings["broker.dead_after"] < 2 * settings["broker.ping_interval"]:
        raise ConfigError("broker.dead_after must be at least twice broker.ping_interval.")
    core = BrokerConfig(
        ping_interval=settings["broker.ping_interval"],
        dead_after=settings["broker.dead_after"],
        reclaim_max=settings["broker.reclaim_max"],
        retention=settings["broker.retention_days"] * 86_400.0,
        max_queued_jobs=settings["broker.max_queued_jobs"],
    )
    return ServerSettings(bind, settings["broker.base_port"], data_folder(settings), core, settings["broker.fsync"])


def data_folder(settings: Settings) -> Path:
    """Where the broker's files are."""
    folder = Path(settings["broker.data_dir"]).expanduser() if settings["broker.data_dir"] else folders().data / "broker"
    return folder.absolute()


async def serve(settings: ServerSettings, ready: ReadyLine) -> int:
    """Run a broker until a signal, or until its core gives up."""
    server = BrokerServer(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)

    def on_ready(port: int) -> None:
        log.info("ready on %s, ports %d to %d, data in %s", settings.bind, port, port + 3, settings.data_dir)
        ready.say({"ready": True, "address": settings.bind, "port": port, "pid": os.getpid()})
        notify("READY=1")
        _feed_watchdog(loop)

    code = await server.run(on_ready)
    notify("STOPPING=1")
    log.info("stopped")
    return code


def _feed_watchdog(loop: asyncio.AbstractEventLoop) -> None:
    interval = watchdog_interval()
    if interval:
        notify("WATCHDOG=1")
        loop.call_later(interval, _feed_watchdog, loop)


def main(argv: list[str] | None = None) -> int:
    """Run the broker; returns the exit code.

    0 after a stop, 1 when it has failed and should be started again, 2 for a wrong configuration, 3 when it may not run here (port or
    folder in use, database of a newer release, or older than the cluster).
    """
    options = parser().parse_args(argv)
    ready = ReadyLine(options.ready_fd)
    given = {
        "broker.bind": options.bind,
        "broker.base_port": options.base_port,
        "broker.data_dir": options.data_dir,
        "broker.insecure": options.insecure,
        "broker.fsync": options.fsync,
        "log.level": options.log_level,
        "log.format": options.log_format,
    }
    try:
        settings = load_settings(given)
        set_up_logging(settings["log.level"], settings["log.format"])
        for line in replaced_variables():
            log.warning("%s", line)
        if settings["broker.insecure"]:
            log.warning("--insecure: no encryption, and whoever reaches the ports can run jobs")
        return asyncio.run(serve(server_settings(settings)._replace(restored=options.restored), ready))
    except KtrdrError as error:
        sys.stderr.write(f"ktrdr-broker: {error.message}\n" + (f"{error.hint}\n" if error.hint else ""))
        ready.say({"ready": False, **error.as_dict()})
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
