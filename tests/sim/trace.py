"""Messages in words: for the trace of a World, and for recorded dialogues."""

from __future__ import annotations

from typing import Any

import msgspec

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.testing import Frames
from tests.sim.client_machine import LANE

QUIET = (m.WorkerPing, m.Pong, m.ClientPing, m.ClientPong, m.ProgressEvent, m.Progress)
DULL = {"at", "epoch", "kind", "max_inline_result", "max_message", "session", "size", "text", "versions"}
SHOWN = {"job_id", "token", "attempt", "tag", "state", "reason", "outcome", "rev", "code", "verdict", "worker_id"}
_UP = {"workers": codec.FROM_WORKER, "clients": codec.FROM_CLIENT, "bulk": codec.BULK_TO_BROKER}
_DOWN = {"workers": codec.TO_WORKER, "clients": codec.TO_CLIENT, "bulk": codec.BULK_FROM_BROKER, "events": codec.EVENTS}


def describe(port: str, up: bool, frames: Frames) -> str:
    """What frames are; empty for heartbeats and progress."""
    message, _ = codec.decode(frames, (_UP if up else _DOWN)[port])
    return "" if isinstance(message, QUIET) else f"{type(message).__name__}{brief(message)}"


def brief(message: Any) -> str:
    """The fields of a message that tell the story."""
    words = [f"{name}={text}" for name in message.__struct_fields__ if name not in DULL and (text := told(getattr(message, name)))]
    return f"({', '.join(words)})" if words else ""


def told(value: Any) -> str:
    """A field in short; empty for what tells nothing."""
    if isinstance(value, bytes):
        return str(int.from_bytes(value[:4], "big")) if len(value) == 16 and value.endswith(LANE) else ""
    if isinstance(value, msgspec.Struct):
        inner = [f"{name}={text}" for name in value.__struct_fields__ if name in SHOWN and (text := told(getattr(value, name)))]
        return f"[{' '.join(inner)}]" if inner else ""
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(told, value)))
    if isinstance(value, dict | float) or value is None or value == 0:
        return ""
    return str(value)
