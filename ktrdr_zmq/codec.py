"""Frames to messages and back: the only place where headers are encoded or decoded.

A message is one frame, or two if it has a body: ``[HDR]`` or ``[HDR][BODY]``. HDR is ``K Z major verb`` (four octets, readable for
ever) and one MessagePack array. The bodies of a batch are joined; their lengths stand in the header (``size`` of each item).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ktrdr_zmq import messages as m
from ktrdr_zmq.errors import ProtocolError

Frames = Sequence[bytes]
Decoders = Mapping[int, "msgspec.msgpack.Decoder[Any]"]

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_PREFIX: Final = {cls: m.MAGIC + bytes((m.MAJOR, verb)) for cls, verb in m.VERBS.items()}
_BATCHES: Final = frozenset({m.Submit, m.Dispatch, m.Result})
_SINGLES: Final = frozenset({m.ResultReply, m.LogsReply, m.LogTail, m.JobEvent, m.Chunk, m.PutChunk})


def decoders(table: Mapping[int, type[m.Message]]) -> Decoders:
    """The decoders of the verbs that one kind of peer may send."""
    return {verb: msgspec.msgpack.Decoder(cls) for verb, cls in table.items()}


FROM_WORKER: Final = decoders(m.FROM_WORKER)
TO_WORKER: Final = decoders(m.TO_WORKER)
FROM_CLIENT: Final = decoders(m.FROM_CLIENT)
TO_CLIENT: Final = decoders(m.TO_CLIENT)
EVENTS: Final = decoders(m.EVENTS)
BULK_TO_BROKER: Final = decoders(m.BULK_TO_BROKER)
BULK_FROM_BROKER: Final = decoders(m.BULK_FROM_BROKER)


def encode(message: m.Message, bodies: Sequence[bytes] = ()) -> list[bytes]:
    """Encode a message; the sizes in its header must be those of ``bodies``."""
    header = _PREFIX[type(message)] + _ENCODE(message)
    if not bodies:
        return [header]
    if len(bodies) == 1:
        return [header, bodies[0]]
    return [header, b"".join(bodies)]


def decode(frames: Frames, table: Decoders) -> tuple[Any, list[bytes]]:
    """Decode one message.

    Parameters
    ----------
    frames : sequence of bytes
        Without routing id or topic.
    table : Decoders
        The verbs allowed here, for example `FROM_WORKER`.

    Returns
    -------
    message, bodies
        One body for each item of a batch (empty where ``size`` is 0), one for a single message with a body, else none.

    Raises
    ------
    ProtocolError
        With code BAD_FRAME, VERSION or FORBIDDEN_VERB; its ``verb`` is what could be read.
    """
    header = frames[0] if frames else b""
    if len(header) < 5 or header[:2] != m.MAGIC:
        raise ProtocolError("This is not a ktrdr-zmq message.")
    verb = header[3]
    if header[2] != m.MAJOR:
        raise ProtocolError(f"Protocol version {header[2]} is not spoken here; version {m.MAJOR} is.", code="VERSION", verb=verb)
    decoder = table.get(verb)
    if decoder is None:
        raise ProtocolError(f"Verb 0x{verb:02x} is not allowed here.", code="FORBIDDEN_VERB", verb=verb)
    if len(frames) > 2:
        raise ProtocolError(f"A message has at most two frames, this one has {len(frames)}.", verb=verb)
    try:
        message = decoder.decode(header[4:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"The header of verb 0x{verb:02x} is wrong: {error}", verb=verb) from None
    return message, _split(message, frames[1] if len(frames) == 2 else b"", verb)


def _split(message: Any, body: bytes, verb: int) -> list[bytes]:
    """Cut the joined body into one for each item, and check that the header told the truth."""
    kind = type(message)
    if kind in _SINGLES:
        if message.size != len(body):
            raise _untrue(message.size, body, verb)
        return [body]
    if kind not in _BATCHES:
        if body:
            raise ProtocolError("This verb has no body.", verb=verb)
        return []
    sizes = [item.size for item in message.items]
    if min(sizes, default=0) < 0 or sum(sizes) != len(body):
        raise _untrue(sum(sizes), body, verb)
    if len(sizes) == 1:
        return [body]
    parts = []
    start = 0
    for size in sizes:
        parts.append(body[start : start + size])
        start += size
    return parts


def _untrue(announced: int, body: bytes, verb: int) -> ProtocolError:
    return ProtocolError(f"The header announces {announced} octets of body, {len(body)} came.", verb=verb)
