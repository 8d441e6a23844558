"""What a broker takes possession of when it starts: its folder, four ports in a row, and enough file descriptors."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import socket as stdlib_socket
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import zmq

from ktrdr_zmq.errors import EXIT_REFUSED, ConfigError, KtrdrError
from ktrdr_zmq.transport import bind_router, bind_xpub

PORTS: Final = ("workers", "clients", "events", "bulk")
LOCK_NAME: Final = "broker.lock"


class StartRefused(KtrdrError):
    """The broker cannot start here."""

    code = "REFUSED"
    exit_code = EXIT_REFUSED


class FolderLock:
    """Keeps two brokers off one folder; released by the end of the process, however it ends.

    Raises
    ------
    ConfigError
        When the folder cannot be used.
    StartRefused
        When another broker has it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"The data folder {folder} cannot be used: {error.strerror}.", hint="Name another one with --data-dir."
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise StartRefused(
                f"The data folder {folder} is in use by another broker ({holder}).", hint="Stop it, or name another folder with --data-dir."
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {stdlib_socket.gethostname()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let another broker have the folder."""
        self._file.close()


class Sockets(NamedTuple):
    """The broker's sockets, bound."""

    base_port: int
    workers: Any
    clients: Any
    events: Any
    bulk: Any


def bind_all(context: zmq.Context[Any], address: str, base_port: int) -> Sockets:
    """Bind the four ports, all or none."""
    host = f"[{address}]" if ":" in address else address
    bound: list[Any] = []
    try:
        for offset, name in enumerate(PORTS):
            bind = bind_xpub if name == "events" else bind_router
            bound.append(bind(context, f"tcp://{host}:{base_port + offset}"))
    except zmq.ZMQError as error:
        for socket in bound:
            socket.close(0)
        port = base_port + len(bound)
        if error.errno == errno.EADDRINUSE:
            raise StartRefused(
                f"Port {port} on {address} is in use (a broker needs {base_port} to {base_port + 3}).",
                hint="Stop what uses it, or choose another --base-port.",
            ) from error
        raise ConfigError(
            f"Cannot bind {address}, port {port}: {error.strerror}.", hint="--bind takes an address of this machine."
        ) from error
    return Sockets(base_port, *bound)


def bind_free(context: zmq.Context[Any], address: str) -> Sockets:
    """Four free ports in a row, wherever they are."""
    family = stdlib_socket.AF_INET6 if ":" in address else stdlib_socket.AF_INET
    for _ in range(50):
        with stdlib_socket.socket(family) as probe:
            try:
                probe.bind((address, 0))
            except OSError as error:
                raise ConfigError(f"Cannot bind {address}: {error.strerror}.", hint="--bind takes an address of this machine.") from error
            port = int(probe.getsockname()[1])
        if port > 65_000:
            continue
        with contextlib.suppress(StartRefused):
            return bind_all(context, address, port)
    raise StartRefused(f"No four free ports in a row on {address}.", hint="Name one with --base-port.")


def raise_file_limit() -> None:
    """Each peer is a descriptor; an accept that fails for lack of one would spin."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536, hard))
