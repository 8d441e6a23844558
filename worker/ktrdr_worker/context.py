"""The child's side of a job: the `JobContext` that a handler sees.

Lives in the child process. May write below the job's own spool and work folders, and send frames to the agent; knows no sockets of the
network. May be used from any thread of the handler.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import msgpack

from ktrdr_worker import pipe
from ktrdr_worker.handler import JobError, JobInterrupted
from ktrdr_worker.spool import sync_folder
from ktrdr_zmq.jobs import Artifact

PROGRESS_EVERY: Final = 0.1
STAGE_EVERY: Final = 0.02
MAX_STAGE: Final = 64
MAX_TEXT: Final = 1000
MAX_METRICS: Final = 32
CHECKPOINT_NAME: Final = "checkpoint"
CHECKPOINT_TYPE: Final = "application/x-ktrdr-checkpoint"
_PIECE: Final = 1 << 20


class RunningJob:
    """Implements `ktrdr_worker.handler.JobContext` for one job.

    Parameters
    ----------
    run : pipe.Run
        What the agent said.
    spool, work : Path
        Below each of them the job has a folder of its own, which does not exist before it is needed.
    cache : Path
        The worker's folder of what is kept between jobs.
    send : callable
        Sends a frame to the agent; with ``True`` as second argument it may be dropped when the agent is slow.
    """

    def __init__(self, run: pipe.Run, spool: Path, work: Path, cache: Path, send: Callable[[pipe.FromChild, bool], None]) -> None:
        self.job_id = run.job_id.hex()
        self.attempt = run.attempt
        self.device = run.device
        self.threads = run.threads
        self.inputs: Mapping[str, Path] = {name: Path(path) for name, path, _ in run.inputs}
        self.input_digests: Mapping[str, str] = {name: digest.hex() for name, _, digest in run.inputs}
        self.interrupted = False
        self.artifacts: list[Artifact] = []
        self._used_work = False
        self._spool = spool
        self._work = work
        self._cache = cache
        self._run = run
        self._send = send
        self._fraction = 0.0
        self._stage = ""
        self._told = -math.inf
        self._checkpoint_seq = run.attempt << 20  # grows over all attempts of the job, on whatever host

    # Most short jobs need no files: their folders' names are not even put together.

    @property
    def spool(self) -> Path:
        """The job's folder for what outlives it."""
        return self._spool / f"{self._run.token:016x}"

    @property
    def work_dir(self) -> Path:
        folder = self._work / f"{self._run.token:016x}"
        folder.mkdir(parents=True, exist_ok=True)
        self._used_work = True
        return folder

    @property
    def cache_dir(self) -> Path:
        self._cache.mkdir(parents=True, exist_ok=True)
        return self._cache

    def lost(self, path: Path) -> bool:
        """Whether a path that is not there can only have been removed by somebody else: no handler deletes inputs or the job's folders."""
        if path in self.inputs.values() or (self._run.checkpoint and path == Path(self._run.checkpoint)):
            return True
        folders = [self.spool, *([self._work / self.spool.name] if self._used_work else [])]
        return any(path.is_relative_to(folder) and not folder.exists() for folder in folders)

    def clean_up(self) -> None:
        """Remove the scratch folder, if the job had one."""
        if self._used_work:
            shutil.rmtree(self.work_dir, ignore_errors=True)

    @property
    def cancelled(self) -> bool:
        return self.interrupted

    def check_cancelled(self) -> None:
        if self.interrupted:
            raise JobInterrupted

    def progress(self, fraction: float, *, stage: str = "", text: str = "", metrics: Mapping[str, float] | None = None) -> None:
        now = time.monotonic()
        if now - self._told < (PROGRESS_EVERY if stage == self._stage else STAGE_EVERY):
            return
        self._told = now
        self._stage = stage
        if fraction > self._fraction:  # false for NaN as well
            self._fraction = min(float(fraction), 1.0)
        numbers = [(str(name)[:MAX_STAGE], float(value)) for name, value in list((metrics or {}).items())[:MAX_METRICS]]
        self._send(pipe.Progress(self._run.token, self._fraction, stage[:MAX_STAGE], text[:MAX_TEXT], numbers), True)

    def add_artifact(self, name: str, source: Path | bytes, media_type: str = "application/octet-stream") -> str:
        if not name or len(name) > 200 or name in {"log", CHECKPOINT_NAME} or any(known.name == name for known in self.artifacts):
            raise JobError(f"An artifact cannot be named {name!r}: the name is empty, too long, reserved or used already.")
        digest, size = self._keep(source)
        self.artifacts.append(Artifact(name, digest, size, media_type))
        return digest.hex()

    def save_checkpoint(self, files: Mapping[str, bytes]) -> None:
        octets = msgpack.packb({"schema": 1, "files": {str(name): bytes(content) for name, content in files.items()}})
        digest, size = self._keep(octets)
        self._checkpoint_seq += 1
        artifact = Artifact(CHECKPOINT_NAME, digest, size, CHECKPOINT_TYPE)
        self._send(pipe.Checkpointed(self._run.token, self._checkpoint_seq, artifact), False)

    def load_checkpoint(self) -> Mapping[str, bytes] | None:
        if not self._run.checkpoint:
            return None
        document = msgpack.unpackb(Path(self._run.checkpoint).read_bytes())
        if document["schema"] != 1:
            raise JobError("The checkpoint was written by a newer release than this worker's.", hint="Upgrade ktrdr-zmq here.")
        files: dict[str, bytes] = document["files"]
        return files

    def _keep(self, source: Path | bytes) -> tuple[bytes, int]:
        """Put content into the job's spool folder under its digest, synced; return digest and size."""
        folder = self.spool
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"new-{os.getpid()}-{time.monotonic_ns()}"
        with temporary.open("wb") as target:
            if isinstance(source, bytes):
                target.write(source)
                digest, size = hashlib.sha256(source).digest(), len(source)
            else:
                with Path(source).open("rb") as origin:
                    digest, size = _copy(origin, target)
            target.flush()
            os.fsync(target.fileno())
        temporary.rename(folder / digest.hex())
        sync_folder(folder)
        return digest, size


def _copy(origin: BinaryIO, target: BinaryIO) -> tuple[bytes, int]:
    running = hashlib.sha256()
    size = 0
    while piece := origin.read(_PIECE):
        running.update(piece)
        target.write(piece)
        size += len(piece)
    return running.digest(), size
