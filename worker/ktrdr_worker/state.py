"""The state folder: who this worker is, and what must outlive its process. Held under a lock, so that no two agents share one."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from pathlib import Path
from typing import IO, Any, Final

from ktrdr_zmq.errors import EXIT_REFUSED, ConfigError, KtrdrError

MOST_DEFAULTS: Final = 1000
_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class FolderInUse(KtrdrError):
    """The state folder is in use by another worker."""

    code = "STATE_IN_USE"
    exit_code = EXIT_REFUSED


def check_id(text: str) -> str:
    """Return a worker's id if it is one.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if _ID.fullmatch(text) is None:
        raise ConfigError(
            f"{text!r} cannot be a worker's id.",
            hint="Use 1 to 63 small letters, digits, dots, dashes and underscores; begin with a letter or digit.",
        )
    return text


def default_id(number: int) -> str:
    """``<hostname>-worker``, ``<hostname>-worker-2`` and so on."""
    host = re.sub(r"[^a-z0-9._-]", "-", socket.gethostname().lower()).strip("-._")[:40] or "host"
    return f"{host}-worker" if number == 1 else f"{host}-worker-{number}"


class StateFolder:
    """A locked folder.

    Attributes
    ----------
    path : Path
    worker_id : str
        As given, or as it was before, or a new default that is kept.
    store_id : bytes
        The broker's store that was last seen; empty if none was.
    epoch : int
        The highest epoch of that broker.
    """

    def __init__(self, path: Path, worker_id: str = "", number: int = 1) -> None:
        self.path = path.absolute()
        self._lock = _lock(path)
        document = self._read()
        self.worker_id = check_id(worker_id or str(document.get("worker_id", "")) or default_id(number))
        try:
            self.store_id = bytes.fromhex(str(document.get("store_id", "")))
            self.epoch = int(document.get("epoch", 0))
        except ValueError:
            self.store_id, self.epoch = b"", 0
        self.remember(self.store_id, self.epoch)

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads((self.path / "worker.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def remember(self, store_id: bytes, epoch: int) -> None:
        """Keep what was seen of the broker, so that it is noticed when a former one answers."""
        self.store_id, self.epoch = store_id, epoch
        text = json.dumps({"schema": 1, "worker_id": self.worker_id, "store_id": store_id.hex(), "epoch": epoch})
        temporary = self.path / "worker.json.tmp"
        temporary.write_text(text + "\n", "utf-8")
        temporary.replace(self.path / "worker.json")

    def release(self) -> None:
        """Let another process have the folder."""
        self._lock.close()


def _lock(path: Path) -> IO[str]:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (path / "worker.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"The state folder {path} cannot be used: {error.strerror}.", hint="Name another one with --state-dir."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise FolderInUse(
            f"The state folder {path} is in use by another worker ({holder}).",
            hint="Stop it, or give this one another folder with --state-dir.",
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()}\n")
    file.flush()
    return file


def open_state(base: Path, worker_id: str, folder: str) -> StateFolder:
    """The state folder for a worker.

    Parameters
    ----------
    base : Path
        Where folders are made that nobody named.
    worker_id, folder : str
        As given; either may be empty. Without both, the first default folder that is free is taken, so that workers started
        side by side become ``-worker``, ``-worker-2`` and so on, and each comes back as itself.

    Raises
    ------
    FolderInUse
        If the folder that was named, or that belongs to the id, is another process's.
    """
    if folder:
        return StateFolder(Path(folder).expanduser().absolute(), worker_id)
    if worker_id:
        return StateFolder(base / "workers" / check_id(worker_id), worker_id)
    for number in range(1, MOST_DEFAULTS):
        try:
            return StateFolder(base / ("worker" if number == 1 else f"worker-{number}"), "", number)
        except FolderInUse:
            continue
    raise FolderInUse(f"All default state folders below {base} are in use.")
