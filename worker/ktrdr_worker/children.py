"""One child process as the agent sees it: how it is started, what is known of it, and how its end is put into words."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from ktrdr_worker import pipe, processes
from ktrdr_worker.duties import Death
from ktrdr_worker.lanes import Assignment, Lane
from ktrdr_worker.logs import JobLog, LogPipe

TAIL: Final = 16 * 1024
PIPE_SIZE: Final = 1 << 20
MARK_VARIABLE: Final = "KTRDR_CHILD_MARK"


class Child:
    """A child process and the agent's ends of its pipes.

    Attributes
    ----------
    jobs : deque of Assignment
        What it was given and has not ended, in its order; the first one runs.
    began : bool
        It has come up.
    closing : bool
        It is to be replaced when its jobs are done.
    soiled : bool
        A job has left something behind in it.
    dead : bool
        The process has ended; what it had started may still live.
    late : bool
        Its first job came when it was dead already.
    killed : bool
        By the agent.
    unheard : bool
        Something that it said could not be dealt with.
    verdict : str
        Why, where its job is to blame.
    """

    def __init__(self, lane: Lane, popen: subprocess.Popen[bytes], line: socket.socket, output: LogPipe, mark: bytes) -> None:
        self.lane = lane
        self.popen = popen
        self.line = line
        self.output = output
        self.mark = mark
        self.framer = pipe.Framer()
        self.outgoing = bytearray()
        self.jobs: deque[Assignment] = deque()
        self.began = False
        self.served = 0
        self.closing = False
        self.soiled = False
        self.dead = False
        self.late = False
        self.killed = False
        self.unheard = False
        self.verdict = ""
        self.suspects: list[int] = []
        self.pidfd = -1

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def boundary(self) -> bytes:
        """What it writes between the outputs of two jobs."""
        return _boundary(self.mark)


def _boundary(mark: bytes) -> bytes:
    return b"\0" + mark


def launch(lane: Lane, environment: Mapping[str, str], make_log: Callable[[int], JobLog]) -> Child:
    """Start a child process.

    Raises
    ------
    OSError
        When there is no process or descriptor to be had; nothing is left behind.
    """
    mark = secrets.token_hex(8)
    with contextlib.ExitStack() as ours_too, contextlib.ExitStack() as theirs_only:
        ours, theirs = socket.socketpair()
        ours_too.callback(ours.close)
        theirs_only.callback(theirs.close)
        reader, writer = os.pipe()
        ours_too.callback(os.close, reader)
        theirs_only.callback(os.close, writer)
        command = [sys.executable, "-P", "-m", "ktrdr_worker.child", str(theirs.fileno()), str(os.getpid())]
        popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, pass_fds=(theirs.fileno(),),
            env={**environment, MARK_VARIABLE: mark}, start_new_session=True,
        )  # fmt: skip
        ours_too.pop_all()  # from here on they are the child's
    ours.setblocking(False)
    os.set_blocking(reader, False)
    _widen(reader)
    return Child(lane, popen, ours, LogPipe(reader, _boundary(mark.encode()), make_log), mark.encode())


def death(child: Child, job_log: JobLog | None) -> Death:
    """Say how a child ended."""
    if child.late and child.began:
        return Death("The child process had ended before the job came.", began=False)
    code = child.popen.returncode
    tail = job_log.tail(TAIL) if job_log is not None else ""
    number = max(-code, 0)
    if not child.began:
        text = f"The child process did not come up (exit code {code}). {tail.strip()[-500:]}".strip()
    elif number:
        text = f"The job's process was killed by signal {number} ({processes.signal_name(number)})."
        if child.unheard:
            text += " This worker did so, because it could not deal with what the process said; its log says more."
        elif number == signal.SIGKILL and not child.killed:
            text += " This worker did not send it; the kernel does when memory runs out."
    else:
        text = f"The job's process ended by itself with exit code {code}."
    return Death(text, max(code, 0), number, child.began, child.verdict, tail)


def _widen(fd: int) -> None:
    """Give a chatty child a wide pipe, where the system allows it."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
