"""Finished results on disk until the broker has acknowledged them, and each job's files.

The child writes and syncs a result under a temporary name; the agent renames it once the child has said so. After a crash of the agent both
names count: what carries its right digest is a result. Layout below the state folder::

    spool/<token>/result      the outcome, or result.tmp
    spool/<token>/log         what the job printed
    spool/<token>/<sha256>    artifacts and checkpoints
    work/<token>/             scratch of a running job
    kept/                     what handlers keep between jobs; the agent does not look into it

Imports no asyncio and no zmq: the child uses `write_result`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

import msgspec

from ktrdr_worker import pipe
from ktrdr_zmq.jobs import Artifact, Outcome
from ktrdr_zmq.messages import ResultItem

RESULT: Final = "result"
LOG: Final = "log"
LOG_TYPE: Final = "text/plain; charset=utf-8"


class _Record(msgspec.Struct, array_like=True):
    schema: int
    job_id: bytes
    ended: pipe.Ended


_DECODE: Final = msgspec.msgpack.Decoder(_Record)


def write_result(folder: Path, job_id: bytes, ended: pipe.Ended) -> bool:
    """Put an outcome on disk, synced, under its temporary name; False if the disk does not take it."""
    data = msgspec.msgpack.encode(_Record(1, job_id, ended))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{RESULT}.tmp").open("wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
        sync_folder(folder.parent)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Spool:
    """The agent's view of the files below its state folder."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "spool"
        self.work = state / "work"
        self.kept = state / "kept"
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)  # whatever worked there is dead
        self.work.mkdir(parents=True, exist_ok=True)

    def job(self, token: int) -> Path:
        """The folder of one job; may not exist."""
        return self.folder / f"{token:016x}"

    def artifact(self, token: int, artifact: Artifact) -> Path:
        """Where an artifact of a job lies."""
        return self.job(token) / (LOG if artifact.name == LOG else artifact.digest.hex())

    def keep(self, token: int) -> None:
        """The child has reported its result: from now on it is the agent's."""
        folder = self.job(token)
        with contextlib.suppress(OSError):
            (folder / f"{RESULT}.tmp").rename(folder / RESULT)

    def log_artifact(self, path: Path) -> Artifact | None:
        """A log file as an artifact; None if nothing was printed."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        return Artifact(LOG, hashlib.sha256(content).digest(), len(content), LOG_TYPE) if content else None

    def recover(self) -> list[tuple[ResultItem, bytes]]:
        """Results of an earlier process that the broker has not acknowledged; everything else is removed."""
        found = []
        for folder in sorted(self.folder.iterdir()):
            entry = self._read(folder)
            if entry is None:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                found.append(entry)
        return found

    def _read(self, folder: Path) -> tuple[ResultItem, bytes] | None:
        for name in (RESULT, f"{RESULT}.tmp"):
            with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
                data = (folder / name).read_bytes()
                if hashlib.sha256(data[32:]).digest() != data[:32]:
                    continue
                record = _DECODE.decode(data[32:])
                ended = record.ended
                log = self.log_artifact(folder / LOG)
                artifacts = [*ended.artifacts, log] if log is not None else ended.artifacts
                item = ResultItem(
                    record.job_id, ended.token, Outcome(ended.outcome), len(ended.body), ended.run_s, artifacts, ended.failure, ended.reason
                )
                return item, ended.body
        return None

    def discard(self, token: int) -> None:
        """Remove a job's files. May take a while for large ones: call it from a thread."""
        shutil.rmtree(self.job(token), ignore_errors=True)
        shutil.rmtree(self.work / f"{token:016x}", ignore_errors=True)
