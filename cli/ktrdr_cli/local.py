"""The one local cluster of a person: its file, its lock, its free ports, its signals. `ktrdr up`, `down` and `demo --keep` stand on it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

from ktrdr_zmq.errors import EXIT_REFUSED, KtrdrError, UsageError

PORTS: Final = 4
ATTEMPTS: Final = 200
START_TIMEOUT_S: Final = 180.0


class LocalRefused(KtrdrError):
    """The local cluster cannot do this now."""

    code = "LOCAL"
    exit_code = EXIT_REFUSED


def free_port(first: int) -> int:
    """The first base port from ``first`` on whose four ports are free on loopback; 0 if there is none nearby."""
    for base in range(first, min(first + ATTEMPTS * PORTS, 65_533), PORTS):
        if all(_is_free(base + offset) for offset in range(PORTS)):
            return base
    return 0


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# ---------------------------------------------------------------------------------------------------------------- the file and the lock


def _runtime() -> Path:
    """The folder of the file, made with mode 0700.

    Raises
    ------
    UsageError
        When it is another person's.
    """
    from ktrdr_zmq.config import up_file

    folder = up_file().parent
    for path in (folder.parent, folder):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=True)
    if folder.stat().st_uid != os.getuid() or folder.is_symlink():
        raise UsageError(f"{folder} belongs to somebody else.", hint="Set XDG_RUNTIME_DIR to a folder of your own.")
    folder.chmod(0o700)
    return folder


@contextlib.contextmanager
def sole() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Be the one local cluster of this person; yields what publishes where it is.

    Raises
    ------
    LocalRefused
        When another one runs; says where.
    """
    from ktrdr_zmq.config import up_file

    lock = os.open(_runtime() / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise already() from None
        file = up_file()

        def publish(document: dict[str, Any]) -> None:
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(document) + "\n", "utf-8")
            partial.replace(file)

        try:
            yield publish
        finally:
            file.unlink(missing_ok=True)
    finally:
        os.close(lock)


def running() -> dict[str, Any] | None:
    """What the running local cluster says of itself: empty while it starts, None if there is none."""
    from ktrdr_zmq.config import read_up_file, up_file

    try:
        lock = os.open(up_file().parent / "up.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_up_file() or {}
    finally:
        os.close(lock)
    return None


def already() -> LocalRefused:
    """The refusal of a second cluster."""
    there = running() or {}
    if not there:
        return LocalRefused("A local cluster is being started or stopped right now.", hint="Try again in a moment.")
    return LocalRefused(
        f"A local cluster runs already at {there['broker']} (process {there['pid']}, data in {there.get('data_dir', '?')}).",
        hint="Use it as it is: every command finds it. Or stop it with: ktrdr down",
    )


def stop_running(timeout: float) -> dict[str, Any] | None:
    """Ask the running local cluster to end and wait for that; None if there is none.

    Raises
    ------
    LocalRefused
        When it has not ended in time.
    """
    there = running()
    if there is None:
        return None
    end = time.monotonic() + timeout
    asked = False
    while (now := running()) is not None:
        if now and not asked:
            there, asked = now, True
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(now["pid"]), signal.SIGTERM)
        if time.monotonic() > end:
            pid = there.get("pid", "?")
            raise LocalRefused(
                f"The local cluster (process {pid}) has not ended within {timeout:g} s.", hint=f"End it the hard way with: kill -9 {pid}"
            )
        time.sleep(0.05)
    return there


# ---------------------------------------------------------------------------------------------------------------- signals


class Stop:
    """SIGINT, SIGTERM and SIGHUP: the first asks for an end, the second calls ``hurry``.

    Until `ready` is called, the first one raises KeyboardInterrupt instead: there is nothing to end in good order yet.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
        self._is_ready = False
        self.asked = False
        self.hurry: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def ready(self) -> None:
        """From now on the first signal is waited for by `wait`."""
        self._is_ready = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._is_ready:
            raise KeyboardInterrupt
        if self.asked:
            self.hurry()
        self.asked = True
        os.write(self._writer, b"x")

    def wait(self, timeout: float) -> bool:
        """Wait for the first signal, at most so many seconds; whether it has come."""
        if not self.asked:
            select.select([self._reader], [], [], timeout)
        return self.asked


# ---------------------------------------------------------------------------------------------------------------- in the background


def start_in_background(options: Sequence[str], log: Path) -> dict[str, Any]:
    """Start ``ktrdr up`` as a process of its own and wait until it is ready.

    Raises
    ------
    KtrdrError
        With that process's own words, and its exit code, when it does not start.
    """
    there = running()
    if there is not None:
        raise already()
    log.parent.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    try:
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "ktrdr_cli", "up", *options, "--ready-fd", str(writer)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=(writer,), start_new_session=True,
            )  # fmt: skip
    finally:
        os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        readable, _, _ = select.select([pipe], [], [], START_TIMEOUT_S)
        said = pipe.readline() if readable else b""
    if not said:
        process.terminate()
        raise LocalRefused("The local cluster did not get ready.", hint=f"Its log says more: {log}")
    document: dict[str, Any] = json.loads(said)
    if "error" in document:
        process.wait(10)
        raise LocalRefused(document["error"], hint=document.get("hint", ""), code=document.get("code", ""))
    return document
