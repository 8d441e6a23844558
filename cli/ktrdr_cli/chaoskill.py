"""What ``ktrdr chaos --kill`` does to the processes of the running ``ktrdr up``: SIGKILL and SIGSTOP, found through /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

from ktrdr_cli.local import running
from ktrdr_zmq.errors import UsageError

AGENT: Final = b"ktrdr_worker\0"
BROKER: Final = b"ktrdr_broker\0"
CHILD: Final = b"ktrdr_worker.child\0"


class Victims:
    """The processes of the local cluster.

    Raises
    ------
    UsageError
        When no ``ktrdr up`` of this person runs here, or the given broker is another one's.
    """

    def __init__(self, broker: str) -> None:
        there = running()
        if not there:
            raise UsageError(
                "--kill is for the cluster of a 'ktrdr up' on this machine, and none runs.",
                hint="Start one with: ktrdr up, or leave --kill out.",
            )
        if there["broker"] != broker:
            raise UsageError(
                f"--kill is for the cluster of 'ktrdr up' at {there['broker']}; the broker at {broker} is another one's.",
                hint="Leave --broker or --kill out.",
            )
        if not Path("/proc/self/task").exists():
            raise UsageError("--kill needs Linux: processes are found through /proc.")
        self._up = int(there["pid"])
        self._stopped: set[int] = set()

    def brokers(self) -> list[int]:
        """The broker, if it runs now."""
        return [pid for pid in _children(self._up) if _is(pid, BROKER)]

    def workers(self) -> list[int]:
        """The agents of the workers."""
        return [pid for pid in _children(self._up) if _is(pid, AGENT)]

    def children(self) -> list[int]:
        """The processes that run jobs."""
        return [pid for agent in self.workers() for pid in _children(agent) if _is(pid, CHILD)]

    def kill(self, pid: int) -> None:
        """SIGKILL."""
        _send(pid, signal.SIGKILL)

    def stop(self, pid: int) -> None:
        """SIGSTOP; `resume` or `resume_all` lets it go on."""
        self._stopped.add(pid)
        _send(pid, signal.SIGSTOP)

    def resume(self, pid: int) -> None:
        """SIGCONT."""
        self._stopped.discard(pid)
        _send(pid, signal.SIGCONT)

    def resume_all(self) -> None:
        """Nothing stays stopped, however the run ends."""
        for pid in list(self._stopped):
            self.resume(pid)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, listed.read_text().split())
    return found


def _is(pid: int, module: bytes) -> bool:
    """Whether a process runs this module (``python -m module``)."""
    with contextlib.suppress(OSError):
        return b"\0-m\0" + module in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
