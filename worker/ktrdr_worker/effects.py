"""What the worker's core wants done: the only things that leave it. Pure data; see `ktrdr_worker.core`."""

from __future__ import annotations

from typing import NamedTuple

from ktrdr_worker.lanes import Assignment, Lane
from ktrdr_zmq.jobs import Artifact
from ktrdr_zmq.messages import Message


class Send(NamedTuple):
    """Send to the broker. May fail silently: the dialogue repairs it."""

    message: Message
    bodies: tuple[bytes, ...] = ()


class Reconnect(NamedTuple):
    """Throw the socket and everything unsent away and take a new one."""


class Fetch(NamedTuple):
    """Bring these artifacts here, then call `on_fetched`."""

    job: Assignment
    digests: list[bytes]


class StartJob(NamedTuple):
    """Give a job to the child of a lane, behind those it has; make a child if there is none."""

    lane: Lane
    job: Assignment


class StopJob(NamedTuple):
    """Ask the child to leave a job out if it has not begun; if ``interrupt`` is set and it has, to end it (SIGTERM to its group)."""

    lane: Lane
    token: int
    interrupt: bool


class KillChild(NamedTuple):
    """Kill the child of a lane and everything it started, then call `on_child_gone`."""

    lane: Lane


class Upload(NamedTuple):
    """Store these artifacts of a job at the broker, then call `on_uploaded`. ``seq`` is not 0 for a checkpoint."""

    token: int
    artifacts: list[Artifact]
    seq: int = 0


class Discard(NamedTuple):
    """Nothing of this job is needed any more: remove its files, stop its transfers."""

    token: int


class SendLog(NamedTuple):
    """Answer a TAIL with log octets of a running job."""

    request: int
    client: bytes
    job_id: bytes
    token: int
    offset: int
    limit: int


class Remember(NamedTuple):
    """Keep these over restarts of this worker."""

    store_id: bytes
    epoch: int


class Note(NamedTuple):
    """Something an administrator should find in the log. ``level`` is a name of the logging module."""

    level: str
    text: str


class Exit(NamedTuple):
    """End the process."""

    code: int
    text: str = ""


Effect = Send | Reconnect | Fetch | StartJob | StopJob | KillChild | Upload | Discard | SendLog | Remember | Note | Exit
