"""The process that runs handlers: where it stands, and what it makes of an exception that an operating system's call has raised."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from ktrdr_worker import pipe
from ktrdr_worker.child import judge
from ktrdr_worker.context import RunningJob
from ktrdr_worker.duties import Death
from ktrdr_worker.executor import Executor, ExecutorConfig
from ktrdr_worker.lanes import Assignment, Lane
from ktrdr_worker.spool import Spool
from ktrdr_zmq import payload
from ktrdr_zmq.jobs import JobSpec, Outcome

HOST = socket.gethostname()
ROOT = Path(__file__).parents[3]


class Where:
    """A handler that asks where it is, as torch and numba do while they are imported and compile."""

    kind = "where"
    versions = (1, 1)

    def run(self, _body: dict[str, Any], _context: Any) -> dict[str, Any]:
        return {"folder": os.getcwd()}


class Sink:
    def __init__(self) -> None:
        self.ended: asyncio.Queue[pipe.Ended] = asyncio.Queue()

    def on_frame(self, frame: pipe.FromChild, *_: Any) -> None:
        if isinstance(frame, pipe.Ended):
            self.ended.put_nowait(frame)

    def on_gone(self, lane: Lane, death: Death, _log: Any) -> None:
        raise AssertionError(death)


async def test_a_worker_whose_folder_has_been_deleted_still_does_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    sink = Sink()
    config = ExecutorConfig({"where": f"{__name__}:Where"}, environment={"PYTHONPATH": str(ROOT)})
    executor = Executor(config, Spool(tmp_path / "state"), sink)
    try:
        executor.start(Lane("cpu", 0), Assignment(bytes(16), 1, 1, "cpu", JobSpec("where"), payload.pack({}), "", 0.0))
        executor.flush()
        ended = await asyncio.wait_for(sink.ended.get(), 30)
    finally:
        executor.close()
    assert (ended.outcome, ended.failure) == ("done", None)
    assert payload.unpack(ended.body) == {"folder": "/"}


@pytest.fixture
def job(tmp_path: Path) -> RunningJob:
    """A job with an input and a checkpoint that both lie in the worker's state folder."""
    cache = tmp_path / "cache"
    cache.mkdir()
    inputs = (("data", str(cache / "aa"), b"\xaa"),)
    run = pipe.Run(7, "training", bytes(16), 1, "cpu", 1, b"", inputs, str(cache / "bb"))
    return RunningJob(run, tmp_path / "spool", tmp_path / "work", tmp_path / "kept", lambda *_: None)


def raised(call: Any) -> BaseException:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value


def test_an_input_or_checkpoint_that_somebody_has_deleted_is_not_the_jobs_fault(job: RunningJob) -> None:
    for call in (job.inputs["data"].read_bytes, job.load_checkpoint):
        error = raised(call)
        outcome, failure, _ = judge(error, job)
        assert outcome == Outcome.RETRY.value
        assert failure is not None
        assert f"{error.filename} on {HOST} was removed while the job ran" in failure.message
        assert "state folder" in failure.message


def test_a_scratch_folder_that_somebody_has_deleted_is_not_the_jobs_fault(job: RunningJob) -> None:
    place = job.work_dir / "trades"
    missing = raised(place.read_bytes)
    assert judge(missing, job)[0] == Outcome.FAILED.value, "the folder is there: the handler has looked for what it never wrote"
    job.clean_up()
    outcome, failure, _ = judge(raised(lambda: place.open("wb")), job)
    assert outcome == Outcome.RETRY.value
    assert failure is not None
    assert str(place) in failure.message


@pytest.mark.parametrize(
    "error,said",
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b"), f"[Errno 2] No such file or directory: /a/b (on {HOST})"),
        (PermissionError(errno.EACCES, "Permission denied", "a", None, "b"), f"[Errno 13] Permission denied: a -> b (on {HOST})"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"),
         f"[Errno 2] No such file or directory (on {HOST}; no file was named: the traceback says where)"),
        (OSError("of its own"), "of its own"),
    ],
)  # fmt: skip
def test_an_error_of_the_system_names_file_and_host(error: OSError, said: str, job: RunningJob) -> None:
    outcome, failure, _ = judge(error, job)
    assert failure is not None
    assert (outcome, failure.message) == (Outcome.FAILED.value, said)
    assert type(error).__name__ in failure.traceback


def test_a_full_disk_is_not_the_jobs_fault(job: RunningJob) -> None:
    outcome, failure, _ = judge(OSError(errno.ENOSPC, "No space left on device", "/a"), job)
    assert outcome == Outcome.RETRY.value
    assert failure is not None
    assert failure.message == f"The disk of {HOST} cannot be written: No space left on device (/a)."
