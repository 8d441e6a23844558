"""Jobs, workers and answers as a program sees them: ids as hex text, maps as dictionaries. Plain data, made from the wire's views."""

from __future__ import annotations

import csv
import datetime as dt
import io
from typing import Any

import msgspec

from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import HELD, TERMINAL, Artifact, Attempt, Failure, JobState


class ArtifactInfo(msgspec.Struct, frozen=True):
    """A file that a job produced; ``digest`` is its SHA-256 in hex."""

    name: str
    digest: str
    size: int
    media_type: str


class AttemptInfo(msgspec.Struct, frozen=True):
    """One entry of a job's history; times are UTC, None while they have not come."""

    number: int
    worker_id: str
    tag: str
    started: dt.datetime | None
    ended: dt.datetime | None
    reason: str
    failure: Failure | None


class JobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the broker showed it at one moment.

    ``fraction`` is 0 to 1; ``crashes`` counts unexplained deaths of the job's process, ``losses`` lost workers; ``run_s`` is the run time
    of the last attempt in seconds. ``inputs`` maps names to digests (hex). Times are UTC, None while they have not come.
    """

    id: str
    kind: str
    state: JobState
    reason: str
    rev: int
    name: str
    labels: dict[str, str]
    submitter: str
    priority: int
    device: str
    attempt: int
    worker_id: str
    tag: str
    crashes: int
    losses: int
    submitted: dt.datetime | None
    started: dt.datetime | None
    finished: dt.datetime | None
    run_s: float
    fraction: float
    stage: str
    text: str
    metrics: dict[str, float]
    artifacts: list[ArtifactInfo]
    failure: Failure | None
    attempts: list[AttemptInfo]
    notice: str
    retry_of: str
    inputs: dict[str, str]
    seq: int
    result_size: int

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL

    @property
    def running(self) -> bool:
        """Whether a worker has the job."""
        return self.state in HELD

    def to_dict(self) -> dict[str, Any]:
        """The form that ``--json`` prints."""
        return {"schema": 1, **msgspec.to_builtins(self)}


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the broker showed it at one moment. ``gpu_type`` is CUDA, MPS, ``simulated`` or None; ``kinds`` maps to schema ranges."""

    worker_id: str
    state: str
    gpu: bool
    gpu_type: str | None
    gpu_count: int
    simulated_gpu: bool
    address: str
    hostname: str
    slots: dict[str, int]
    kinds: dict[str, tuple[int, int]]
    running: list[str]
    draining: bool
    silent_s: float
    connected_at: dt.datetime | None
    software: dict[str, str]
    numeric: str
    pid: int
    cpus: int
    memory: int
    lag: float
    load: float

    def to_dict(self) -> dict[str, Any]:
        """The form that ``--json`` prints."""
        return {"schema": 1, **msgspec.to_builtins(self)}


class Explanation(msgspec.Struct, frozen=True):
    """Why a job is where it is: a sentence, and a reason for each worker that could matter (empty: it could take the job)."""

    job: JobInfo
    text: str
    workers: list[tuple[str, str]]


class LogChunk(msgspec.Struct, frozen=True):
    """A piece of a job's log, from ``offset``; ``ended`` when there will be no more after it."""

    offset: int
    data: bytes
    ended: bool

    @property
    def next_offset(self) -> int:
        """Where to go on."""
        return self.offset + len(self.data)


class Table:
    """A table that a job left as a CSV artifact.

    Parameters
    ----------
    data : bytes
        The file's octets.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    def rows(self) -> list[dict[str, str]]:
        """Its rows, as text by column."""
        return list(csv.DictReader(io.StringIO(self.data.decode("utf-8"))))

    def to_frame(self) -> Any:
        """As a pandas data frame; times are parsed. Needs pandas."""
        import pandas as pd

        frame = pd.read_csv(io.BytesIO(self.data))
        for column in frame.columns:
            if column == "time" or column.endswith("_time"):
                frame[column] = pd.to_datetime(frame[column], utc=True)
        return frame


def moment(micros: int) -> dt.datetime | None:
    """The broker's UTC microseconds as a time; None for 0."""
    return dt.datetime.fromtimestamp(micros / 1e6, dt.UTC) if micros else None


def _artifact(artifact: Artifact) -> ArtifactInfo:
    return ArtifactInfo(artifact.name, artifact.digest.hex(), artifact.size, artifact.media_type)


def _attempt(attempt: Attempt) -> AttemptInfo:
    return AttemptInfo(
        attempt.number, attempt.worker_id, attempt.tag, moment(attempt.leased_at), moment(attempt.ended_at), attempt.reason, attempt.failure
    )


def job_info(view: m.JobView) -> JobInfo:
    """A job for programs."""
    return JobInfo(
        id=view.job_id.hex(), kind=view.kind, state=view.state, reason=view.reason, rev=view.rev, name=view.name, labels=dict(view.labels),
        submitter=view.submitter, priority=view.priority, device=view.device, attempt=view.attempt, worker_id=view.worker_id, tag=view.tag,
        crashes=view.crashes, losses=view.losses, submitted=moment(view.submitted_at), started=moment(view.started_at),
        finished=moment(view.finished_at), run_s=view.run_s, fraction=view.fraction, stage=view.stage, text=view.text,
        metrics=dict(view.metrics), artifacts=[_artifact(a) for a in view.artifacts], failure=view.failure,
        attempts=[_attempt(a) for a in view.attempts], notice=view.notice, retry_of=view.retry_of.hex(),
        inputs={name: digest.hex() for name, digest in view.inputs}, seq=view.seq, result_size=view.result_size,
    )  # fmt: skip


def worker_info(view: m.WorkerView) -> WorkerInfo:
    """A worker for programs."""
    return WorkerInfo(
        worker_id=view.worker_id, state=view.state, gpu=view.gpu, gpu_type=view.gpu_type, gpu_count=view.gpu_count,
        simulated_gpu=view.simulated_gpu, address=view.address, hostname=view.hostname, slots=dict(view.slots),
        kinds={kind: (low, high) for kind, low, high in view.kinds}, running=[job_id.hex() for job_id in view.running],
        draining=view.draining, silent_s=view.silent_s, connected_at=moment(view.connected_at), software=view.software,
        numeric=view.numeric, pid=view.pid, cpus=view.cpus, memory=view.memory, lag=view.lag, load=view.load,
    )  # fmt: skip
