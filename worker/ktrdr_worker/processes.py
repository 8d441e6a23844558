"""Processes as the operating system sees them: death with the parent, trees, memory. Linux has it all; elsewhere what there is.

Knows nothing of jobs. Reads /proc, sends signals.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_LINUX: Final = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PROC: Final = Path("/proc")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent dies; exit at once if it has died already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Let orphaned descendants become this process's children instead of init's, so that they can be found and killed."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def has_children() -> bool:
    """Whether this process has child processes that still live; dead ones are reaped."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return True
    return False


def children_of(pid: int) -> list[int]:
    """Direct children of all threads of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  # no Path: this runs often
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123  # no Path: this runs often
                found += map(int, file.read().split())
    return found


def descendants(pid: int) -> list[int]:
    """All processes below a process, nearest first."""
    found: list[int] = []
    layer = [pid]
    while layer:
        layer = [child for parent in layer for child in children_of(parent)]
        found += layer
    return found


def resident(pids: Iterable[int]) -> int:
    """Octets of memory that these processes hold together; shared pages are counted once for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123
            total += int(file.read().split()[1]) * _PAGE
    return total


def marked(pid: int, mark: bytes) -> bool:
    """Whether a process was started with this text in its environment."""
    try:
        return mark in (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False


def send_signal(pid: int, number: int) -> None:
    """Signal a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def signal_group(group: int, number: int) -> None:
    """Signal a process group that may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill_tree(pid: int) -> list[int]:
    """Kill a process that leads a group, its group, and all its descendants wherever they moved; return the descendants' pids."""
    below = descendants(pid)
    send_signal(pid, signal.SIGKILL)
    signal_group(pid, signal.SIGKILL)
    for other in below:
        send_signal(other, signal.SIGKILL)
    return below


def sweep_orphans(known: Iterable[int], suspects: Iterable[int], mark: bytes) -> bool:
    """Kill and reap orphans of a dead child that have become ours.

    Parameters
    ----------
    known : pids that are nobody's orphans
    suspects : pids that were seen below the dead child
    mark : bytes
        Text in the environment of everything that the dead child started.

    Returns
    -------
    bool
        Whether all are gone.
    """
    keep, hunted = set(known), set(suspects)
    clean = True
    for pid in descendants(os.getpid()) if _LINUX else []:
        if pid not in keep and (pid in hunted or marked(pid, mark)):
            clean = False
            send_signal(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return clean


def signal_name(number: int) -> str:
    """``SIGSEGV`` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
