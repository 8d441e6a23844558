"""The process that runs handlers: ``python -m ktrdr_worker.child FD AGENT_PID``, started by the agent and by nobody else.

The main thread does the jobs, one after another; a second thread reads the socket pair, so that a job can be told to stop. What handlers
print goes to a pipe that the agent reads; after each job a mark is written there, which tells the agent whose output it was. Dies with
its agent. Speaks to nobody but the agent; imports a handler only when a job of its kind comes.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, Final

from ktrdr_worker import pipe, spool
from ktrdr_worker.context import RunningJob
from ktrdr_worker.handler import Handler, JobInterrupted, Retryable
from ktrdr_worker.loading import load_handler
from ktrdr_worker.processes import become_subreaper, die_with_parent, has_children
from ktrdr_zmq import payload
from ktrdr_zmq.errors import KtrdrError, PayloadError
from ktrdr_zmq.jobs import Failure, Outcome, Reason

MAX_TRACEBACK: Final = 16 * 1024
MAX_MESSAGE: Final = 4 * 1024
AGENT_GONE: Final = 77
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a disk says that cannot be written."""


class Child:
    """One child process: a queue of jobs, the job that runs, and the line to the agent."""

    def __init__(self, line: socket.socket, log_fd: int) -> None:
        self._line = line
        self._log_fd = log_fd
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: dict[int, pipe.Run] = {}
        self._current: RunningJob | None = None
        self._current_token = 0
        self._closed = False
        self._setup: pipe.Setup | None = None
        self._spool = self._work = self._cache = Path()
        self._handlers: dict[str, Handler] = {}

    # ------------------------------------------------------------ the line to the agent

    def read(self) -> None:
        """Take in what the agent says, until it hangs up. The reading thread's main function."""
        framer = pipe.Framer()
        while True:
            try:
                data = self._line.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                break
            for frame in framer.feed(data):
                self._take(pipe.TO_CHILD.decode(frame))
        with self._changed:
            if self._current is not None:  # the agent is gone, or does not want this job any more: nothing of it may go on
                os.killpg(0, signal.SIGKILL)
            self._closed = True
            self._changed.notify()

    def _take(self, frame: pipe.ToChild) -> None:
        if isinstance(frame, pipe.Run):
            with self._changed:
                self._waiting[frame.token] = frame
                self._changed.notify()
        elif isinstance(frame, pipe.Stop):
            with self._changed:
                # Said before a job behind it can begin: the agent hears of the ends of jobs in their order.
                if self._waiting.pop(frame.token, None) is not None:
                    self.send(pipe.LeftOut(frame.token))
                if frame.interrupt and self._current is not None and self._current_token == frame.token:
                    self._current.interrupted = True
        else:
            self._setup, self._spool, self._work, self._cache = frame, Path(frame.spool), Path(frame.work), Path(frame.cache)

    def send(self, frame: pipe.FromChild, may_drop: bool = False) -> None:
        """Send to the agent, from any thread."""
        data = pipe.pack(frame)
        with self._sending:
            try:
                sent = 0
                if may_drop:
                    with contextlib.suppress(BlockingIOError):
                        sent = self._line.send(data, socket.MSG_DONTWAIT)
                    if sent == 0:
                        return
                self._line.sendall(memoryview(data)[sent:])
            except OSError:
                os._exit(AGENT_GONE)

    def on_sigterm(self, _signal: int, _frame: FrameType | None) -> None:
        """The agent asks the whole process group to end; what a handler makes of it is up to its next poll."""
        if self._current is not None:
            self._current.interrupted = True

    # ------------------------------------------------------------ jobs

    def work(self) -> None:
        """Do jobs until the agent hangs up. The main thread's main function."""
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                token = next(iter(self._waiting))
                run = self._waiting.pop(token)
                job = self._begin(run)
            ended = self._do(run, job)
            with self._changed:
                self._current = None
            self._mark(token)
            self.send(ended)

    def _begin(self, run: pipe.Run) -> RunningJob:
        assert self._setup is not None, "the agent sends the setup first"
        job = RunningJob(run, self._spool, self._work, self._cache, self.send)
        self._current, self._current_token = job, run.token
        return job

    def _do(self, run: pipe.Run, job: RunningJob) -> pipe.Ended:
        begun = time.monotonic()
        body, outcome, failure, reason = b"", Outcome.DONE.value, None, ""
        try:
            result = self._handler(run.kind).run(payload.unpack(run.body), job)
            if not isinstance(result, dict):
                raise TypeError(f"The handler of {run.kind} returned {type(result).__name__} and not a dict.")
            body = payload.pack(result, limit=payload.MAX_INLINE_RESULT)
        except BaseException as error:  # noqa: BLE001  # whatever the handler raises is the job's outcome, SystemExit included
            outcome, failure, reason = judge(error, job)
        if failure is None and outcome != Outcome.DONE:
            body = b""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a handler may have closed or replaced them
            sys.stdout.flush()
            sys.stderr.flush()
        run_s = time.monotonic() - begun
        ended = pipe.Ended(run.token, outcome, run_s, body, job.artifacts, failure, reason, soiled=has_children())
        assert self._setup is not None
        if run_s > self._setup.spool_after and outcome != pipe.INTERRUPTED:
            try:
                ended.spooled = spool.write_result(job.spool, run.job_id, ended)
            except OSError as error:
                failure = Failure("DiskError", _disk_trouble(error))
                ended = pipe.Ended(run.token, Outcome.RETRY.value, run_s, b"", [], failure, "", soiled=has_children())
        job.clean_up()
        return ended

    def _handler(self, kind: str) -> Handler:
        handler = self._handlers.get(kind)
        if handler is None:
            assert self._setup is not None
            handler = self._handlers[kind] = load_handler(kind, self._setup.handlers[kind])
        return handler

    def _mark(self, token: int) -> None:
        """Tell the agent, within the stream of output, that what follows belongs to another job."""
        assert self._setup is not None
        os.write(self._log_fd, self._setup.mark + token.to_bytes(8, "big"))


def judge(error: BaseException, job: RunningJob) -> tuple[str, Failure | None, str]:
    """What an exception out of a handler means: outcome, failure, reason."""
    name = type(error).__name__
    text = str(error)[:MAX_MESSAGE]
    if job.interrupted and not isinstance(error, PayloadError):
        return pipe.INTERRUPTED, None, ""
    if isinstance(error, PayloadError) and error.code == "TOO_LARGE":
        failure = Failure(name, f"The result is too large. {text}", hint="Give large things to context.add_artifact() and return numbers.")
        return Outcome.FAILED.value, failure, Reason.RESULT_TOO_LARGE.value
    if isinstance(error, KtrdrError):
        return Outcome.FAILED.value, Failure(name, text, hint=error.hint), ""
    if isinstance(error, JobInterrupted):
        return Outcome.FAILED.value, Failure(name, "The handler stopped although nobody had asked it to."), ""
    if isinstance(error, SystemExit):
        return Outcome.FAILED.value, Failure(name, f"The handler called sys.exit({error.code!r})."), ""
    trouble = _disk_trouble(error) if isinstance(error, OSError) and error.errno in FULL else _loss(error, job)
    if trouble:  # this host's, not the job's
        return Outcome.RETRY.value, Failure("DiskError", trouble), ""
    if isinstance(error, OSError) and error.errno is not None:
        text = _where(error)
    lines = traceback.format_exception(type(error), error, error.__traceback__ and error.__traceback__.tb_next)
    trace = "".join(lines)[-MAX_TRACEBACK:]
    outcome = Outcome.RETRY if isinstance(error, Retryable) else Outcome.FAILED
    return outcome.value, Failure(name, text or name, traceback=trace), ""


def _disk_trouble(error: OSError) -> str:
    return (
        f"The disk of {socket.gethostname()} cannot be written: {error.strerror or error} ({error.filename or 'the worker state folder'})."
    )


def _loss(error: BaseException, job: RunningJob) -> str:
    """What to say when a file is gone that only this worker may remove: an input, a checkpoint, or the folder of the job itself."""
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str) or not job.lost(Path(error.filename)):
        return ""
    return (
        f"{error.filename} on {socket.gethostname()} was removed while the job ran. "
        "Nobody but the worker may delete anything in its state folder: look for what cleans up there."
    )


def _where(error: OSError) -> str:
    """What the system said, of which file and on which host."""
    files = " -> ".join(str(file) for file in (error.filename, error.filename2) if file is not None)
    host = socket.gethostname()
    where = f": {files} (on {host})" if files else f" (on {host}; no file was named: the traceback says where)"
    return f"[Errno {error.errno}] {error.strerror}{where}"[:MAX_MESSAGE]


def main(argv: list[str]) -> int:
    """Run a child process on the socket and for the agent named in ``argv``."""
    line_fd, agent_pid = int(argv[0]), int(argv[1])
    die_with_parent(agent_pid)
    os.chdir("/")  # a folder that cannot go away: torch and numba ask where they are, and fail where that has been deleted
    become_subreaper()
    os.set_inheritable(line_fd, False)
    log_fd = os.dup(2)
    faulthandler.enable(log_fd)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    child = Child(socket.socket(fileno=line_fd), log_fd)
    signal.signal(signal.SIGTERM, child.on_sigterm)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=child.read, name="ktrdr-line", daemon=True).start()
    child.send(pipe.Ready(os.getpid()))
    child.work()
    return 0


def run_main() -> Any:
    """Entry point of ``python -m ktrdr_worker.child``."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run_main())
