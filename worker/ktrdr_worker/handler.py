"""The contract between the framework and the code that does a job.

A handler gets a plain body and a `JobContext`; it never learns that it is distributed. It runs in a child process of the worker's agent.
This module imports nothing heavy: handlers import it, and so do their tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from ktrdr_zmq.errors import KtrdrError

ENTRY_POINT_GROUP: Final = "ktrdr_zmq.handlers"


class JobError(KtrdrError):
    """The job cannot be done as it was asked for.

    Raise it for the submitter's mistakes (a column that is missing, a window without bars): the person sees message and hint, and no
    traceback. Any `KtrdrError` is treated so.
    """

    code = "JOB_ERROR"


class Retryable(Exception):
    """Something outside failed that may work later: the job is tried again after a pause, up to the broker's limit."""


class JobInterrupted(BaseException):
    """The job is to stop: it was cancelled, ran out of time, or its worker is being drained.

    Raised by `JobContext.check_cancelled`. It is no `Exception`, so that ``except Exception`` around a step does not swallow it.
    """


class JobContext(Protocol):
    """What a handler may use of the world around it.

    Attributes
    ----------
    job_id : str
        32 hex digits.
    attempt : int
        1 for the first try.
    device : str
        ``cpu``, ``cuda:0`` or ``mps``. The process sees only the GPU that was assigned to it, hence always number 0.
    threads : int
        How many threads the job may use; set torch, numba and the like to it.
    inputs : mapping of str to Path
        The job's input artifacts as local files, read-only.
    input_digests : mapping of str to str
        The SHA-256 of each, in hex.
    work_dir : Path
        A folder for scratch files, made on first use and removed after the job.
    cache_dir : Path
        A folder that outlives the job, shared by all jobs of the worker, for what is costly to make of inputs. It may be emptied at any
        time; nobody but handlers bounds what is in it.
    cancelled : bool
        Whether the job is to stop. Poll it between steps, or call `check_cancelled`.
    """

    job_id: str
    attempt: int
    device: str
    threads: int
    inputs: Mapping[str, Path]
    input_digests: Mapping[str, str]

    @property
    def work_dir(self) -> Path: ...

    @property
    def cache_dir(self) -> Path: ...

    @property
    def cancelled(self) -> bool: ...

    def check_cancelled(self) -> None:
        """Raise `JobInterrupted` if the job is to stop. A handler that never asks is killed after a grace period."""

    def progress(self, fraction: float, *, stage: str = "", text: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """Say how far the job is. Cheap: calls beyond ten a second are skipped, and the latest one wins.

        Parameters
        ----------
        fraction : float
            0 to 1, over the whole job. Going back is ignored.
        stage, text : str
            What is being done; shown beside the bar.
        metrics : mapping, optional
            Numbers to show, for example a loss.
        """

    def add_artifact(self, name: str, source: Path | bytes, media_type: str = "application/octet-stream") -> str:
        """Give the job a file as part of its outcome.

        Parameters
        ----------
        name : str
            How it is asked for: ``model``, ``trades``.
        source : Path or bytes
            A file, which is copied, or its content.

        Returns
        -------
        str
            The content's SHA-256 in hex.
        """

    def save_checkpoint(self, files: Mapping[str, bytes]) -> None:
        """Keep what a later attempt needs to go on from here, on this worker or another. The newest checkpoint replaces the former."""

    def load_checkpoint(self) -> Mapping[str, bytes] | None:
        """The newest checkpoint of an earlier attempt of this job; None on a fresh start."""


@runtime_checkable
class Handler(Protocol):
    """Does the jobs of one kind.

    Named by an entry point in the group ``ktrdr_zmq.handlers``: its name is the kind, its value a handler, or something without
    parameters that makes one (a class, say). A method ``warm_up()``, if there is one, is called once in a throw-away process before the
    worker offers the kind: to compile and cache what takes long the first time.

    Attributes
    ----------
    kind : str
        The kind of job, as in ``JobSpec.kind``.
    versions : tuple of int
        Lowest and highest schema of the body that it understands.
    """

    kind: str
    versions: tuple[int, int]

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Do the job and return its result.

        The result may hold whatever `ktrdr_zmq.payload` can encode, NumPy arrays included, up to 256 KiB; larger things are artifacts.

        Raises
        ------
        JobError
            The submitter's mistake.
        Retryable
            Try again later.
        JobInterrupted
            The job was told to stop, and has.
        """
