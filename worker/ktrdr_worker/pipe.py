"""What agent and child say to each other over their socket pair: length-prefixed MessagePack.

Both ends are the same installation, so there are no versions here. Pure but for `Framer`'s bytes: no socket is touched.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from ktrdr_zmq.jobs import Artifact, Failure

INTERRUPTED: Final = "interrupted"
"""The outcome of a job that stopped because it was told to; the agent knows what that means (cancelled, timed out, handed back)."""

_LENGTH: Final = struct.Struct("<I")


class Frame(msgspec.Struct, array_like=True):
    """Base of what goes through the pipe."""


# ---------------------------------------------------------------- agent -> child


class Run(Frame, tag=0):
    """Do a job, after those sent before. ``inputs`` are (name, path, SHA-256)."""

    token: int
    kind: str
    job_id: bytes
    attempt: int
    device: str
    threads: int
    body: bytes
    inputs: tuple[tuple[str, str, bytes], ...] = ()
    checkpoint: str = ""


class Setup(Frame, tag=2):
    """The first frame: where things are. ``handlers`` maps a kind to ``module:attribute``; ``mark`` sets jobs apart in the log pipe."""

    handlers: dict[str, str]
    spool: str
    work: str
    cache: str
    mark: bytes
    spool_after: float = 1.0


class Stop(Frame, tag=1):
    """Leave a job out if it has not begun; if it has and ``interrupt`` is set, ask it to end."""

    token: int
    interrupt: bool


# ---------------------------------------------------------------- child -> agent


class Ready(Frame, tag=16):
    """The child listens."""

    pid: int


class Progress(Frame, tag=17):
    """How far a job is."""

    token: int
    fraction: float
    stage: str
    text: str
    metrics: list[tuple[str, float]]


class Ended(Frame, tag=18):
    """A job has ended. ``outcome`` is a `ktrdr_zmq.jobs.Outcome` or `INTERRUPTED`.

    ``spooled``: the result is on disk as well, synced, under a temporary name. ``soiled``: the job left processes behind, so that this
    child should not be used again.
    """

    token: int
    outcome: str
    run_s: float
    body: bytes = b""
    artifacts: list[Artifact] = []
    failure: Failure | None = None
    reason: str = ""
    spooled: bool = False
    soiled: bool = False


class Checkpointed(Frame, tag=19):
    """A checkpoint is on disk, synced."""

    token: int
    seq: int
    artifact: Artifact


class LeftOut(Frame, tag=20):
    """Answer to `Stop` for a job that had not begun."""

    token: int


ToChild = Setup | Run | Stop
FromChild = Ready | Progress | Ended | Checkpointed | LeftOut

TO_CHILD: Final = msgspec.msgpack.Decoder(ToChild)
FROM_CHILD: Final = msgspec.msgpack.Decoder(FromChild)
_ENCODE: Final = msgspec.msgpack.Encoder().encode


def pack(frame: ToChild | FromChild) -> bytes:
    """One frame with its length in front."""
    data = _ENCODE(frame)
    return _LENGTH.pack(len(data)) + data


class Framer:
    """Cuts a stream of octets into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[memoryview]:
        """Take octets in as they come; return the frames that are complete now."""
        buffer = self._rest + data if self._rest else data
        view = memoryview(buffer)
        frames = []
        start = 0
        while len(buffer) - start >= 4:
            end = start + 4 + _LENGTH.unpack_from(buffer, start)[0]
            if end > len(buffer):
                break
            frames.append(view[start + 4 : end])
            start = end
        self._rest = buffer[start:]
        return frames
