"""Frames to messages and back, and every way in which they can be wrong."""

from __future__ import annotations

import enum
import types
import typing
from typing import Any

import msgpack
import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.errors import ProtocolError
from ktrdr_zmq.jobs import Outcome
from ktrdr_zmq.transport import bind_router
from tests.unit.samples import BARE, FULL, JOB, SESSION, TOKEN
from tests.unit.vectors.generate import TABLES

BATCHES = (m.Submit, m.Dispatch, m.Result)
SINGLES = (m.ResultReply, m.LogsReply, m.LogTail, m.JobEvent, m.Chunk, m.PutChunk)


def table_of(kind: type[m.Message]) -> codec.Decoders:
    return codec.decoders(next(table for table in TABLES.values() if kind in table.values()))


def wrong(frames: list[bytes], table: codec.Decoders = codec.FROM_CLIENT) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        codec.decode(frames, table)
    return caught.value


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("message, bodies", FULL + BARE, ids=lambda part: type(part).__name__)
def test_what_is_encoded_is_decoded(message: m.Message, bodies: list[bytes]) -> None:
    frames = codec.encode(message, bodies)
    assert len(frames) == 1 + bool(bodies)
    assert codec.decode(frames, table_of(type(message))) == (message, bodies)


def test_the_header_begins_with_magic_major_and_verb() -> None:
    (header,) = codec.encode(m.ClientPing(13))
    assert header == b"KZ\x01\x4d\x91\x0d"


def test_bodies_of_a_batch_are_joined_and_cut_again() -> None:
    items = [m.SubmitItem(JOB, b"s", size) for size in (3, 0, 2)]
    header, body = codec.encode(m.Submit(1, items), [b"abc", b"", b"de"])
    assert body == b"abcde"
    assert codec.decode([header, body], codec.FROM_CLIENT)[1] == [b"abc", b"", b"de"]


@pytest.mark.parametrize("empty", [[], [b""]])
def test_a_body_of_nothing_may_be_an_empty_frame_or_none(empty: list[bytes]) -> None:
    batch = m.Result(SESSION, [m.ResultItem(JOB, TOKEN, Outcome.DONE), m.ResultItem(JOB, TOKEN + 1, Outcome.DONE)])
    assert codec.decode([codec.encode(batch)[0], *empty], codec.FROM_WORKER)[1] == [b"", b""]
    single = m.ResultReply(1, m.JobView(JOB, 1, 1, "echo", "queued", ""))  # type: ignore[arg-type]
    assert codec.decode([codec.encode(single)[0], *empty], codec.TO_CLIENT)[1] == [b""]


# Every field of every message with whatever its type allows.

INTS = st.integers(-(2**63), 2**64 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    int: INTS,
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    str: TEXTS,
    bytes: st.binary(max_size=8),
    Any: st.recursive(st.none() | st.booleans() | INTS | TEXTS, lambda inner: st.lists(inner, max_size=2), max_leaves=3),
    type(None): st.none(),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    if hint in SIMPLE:
        return SIMPLE[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values, arguments))
    if origin is list:
        return st.lists(values(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    return structs(hint)


def structs(kind: type[Any]) -> st.SearchStrategy[Any]:
    parts = {name: values(hint) for name, hint in typing.get_type_hints(kind).items() if name in kind.__struct_fields__}
    if "size" in parts:
        parts["size"] = st.integers(0, 5)  # as many octets have to be made for it
    return st.builds(kind, **parts)


KINDS = sorted(m.VERBS, key=lambda kind: kind.__name__)
ANY = {kind: structs(kind) for kind in KINDS}


@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_whatever_a_field_holds_survives_the_wire(kind: type[m.Message], data: st.DataObject) -> None:
    message = data.draw(ANY[kind])
    bodies: list[bytes] = []
    if kind in BATCHES:
        bodies = [b"x" * item.size for item in message.items]
    elif kind in SINGLES:
        bodies = [b"x" * message.size]
    assert codec.decode(codec.encode(message, bodies), table_of(kind)) == (message, bodies)


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("frames", [[], [b""], [b"KZ"], [b"KZ\x01\x42"], [b"XX\x01\x42\x90"], [b"kz\x01\x42\x90"], [b"GET / HTTP/1.1"]])
def test_what_is_no_message_of_ours(frames: list[bytes]) -> None:
    error = wrong(frames)
    assert (error.code, error.verb) == ("BAD_FRAME", 0)


@pytest.mark.parametrize("major", [0, 2, 255])
def test_another_major_version_is_named_before_anything_else_is_judged(major: int) -> None:
    error = wrong([b"KZ" + bytes((major, 0xEE)) + b"\xff\xff", b"", b"", b""])
    assert (error.code, error.verb) == ("VERSION", 0xEE)
    assert str(major) in error.message


@pytest.mark.parametrize("verb", [0x00, 0x3F, 0xFF])
def test_a_verb_that_nobody_knows(verb: int) -> None:
    error = wrong([b"KZ\x01" + bytes((verb,)) + b"\x90"])
    assert (error.code, error.verb) == ("FORBIDDEN_VERB", verb)


def test_a_verb_of_another_port_is_forbidden() -> None:
    hello = codec.encode(m.ClientHello(1, m.ClientInfo([1])))
    assert wrong(hello, codec.FROM_WORKER).code == "FORBIDDEN_VERB"
    assert wrong(codec.encode(m.HelloOk(1, b"", 1, 2.0, 10.0, 1, 1)), codec.FROM_WORKER).code == "FORBIDDEN_VERB"
    assert wrong(codec.encode(m.Nack("X")), codec.FROM_CLIENT).verb == m.VERBS[m.Nack]


def test_more_frames_than_two() -> None:
    assert wrong([*codec.encode(m.ClientPing(1)), b"", b""]).code == "BAD_FRAME"


@pytest.mark.parametrize("message, bodies", FULL, ids=lambda part: type(part).__name__)
def test_a_header_that_is_cut_off_anywhere_is_refused(message: m.Message, bodies: list[bytes]) -> None:
    header, *body = codec.encode(message, bodies)
    for end in range(len(header)):
        error = wrong([header[:end], *body], table_of(type(message)))
        assert error.code == "BAD_FRAME"


@pytest.mark.parametrize(
    "rest", [b"\xc1", b"\x90\x90", b"\x91", b"\xc0", b"\x81\xa7request\x01", b"\x92\x01", b"\x92\xa11\x90", b"\xdd\xff\xff\xff\xff"]
)
def test_a_header_that_does_not_fit_its_verb(rest: bytes) -> None:
    error = wrong([b"KZ\x01\x42" + rest])
    assert (error.code, error.verb) == ("BAD_FRAME", 0x42)


def test_a_header_says_nothing_about_the_peers_memory() -> None:
    """An array that claims four thousand million elements costs nothing."""
    assert wrong([b"KZ\x01\x42\x92\x01\xdd\xff\xff\xff\xff"]).code == "BAD_FRAME"


@pytest.mark.parametrize("values", [[1, [[b"id", b"spec", 4]], "later"], [1, [[b"id", b"spec", 4, "later"]]]])
def test_appended_fields_are_skipped_on_every_level(values: list[Any]) -> None:
    message, _ = codec.decode([b"KZ\x01\x42" + msgpack.packb(values), b"body"], codec.FROM_CLIENT)
    assert message == m.Submit(1, [m.SubmitItem(b"id", b"spec", 4)])


def test_unknown_keys_of_a_map_are_skipped() -> None:
    values = [1, {"versions": [1, 2], "mood": "good"}]
    message, _ = codec.decode([b"KZ\x01\x41" + msgpack.packb(values)], codec.FROM_CLIENT)
    assert message == m.ClientHello(1, m.ClientInfo([1, 2]))


@pytest.mark.parametrize("sizes", [(1, 1), (3, 3), (5, 0), (-1, 5), (2**63, 0)])
def test_sizes_that_do_not_add_up(sizes: tuple[int, int]) -> None:
    message = m.Submit(1, [m.SubmitItem(JOB, b"", size) for size in sizes])
    assert wrong([codec.encode(message)[0], b"body"]).code == "BAD_FRAME"


def test_a_body_that_nobody_announced() -> None:
    assert wrong([codec.encode(m.Submit(1, []))[0], b"body"]).code == "BAD_FRAME"
    assert wrong([codec.encode(m.ClientPing(1))[0], b"body"]).code == "BAD_FRAME"
    assert wrong([codec.encode(m.Submit(1, [m.SubmitItem(JOB, b"", 4)]))[0]]).code == "BAD_FRAME"


def attempt(frames: list[bytes], table: codec.Decoders) -> Any:
    """The message, or the code of the refusal; anything else would take the broker's reader down."""
    try:
        return codec.decode(frames, table)[0]
    except ProtocolError as error:
        return error.code


@settings(deadline=None, max_examples=300)
@given(header=st.binary(max_size=60), verb=st.sampled_from(sorted(m.FROM_CLIENT)), body=st.none() | st.binary(max_size=10))
def test_no_octets_raise_anything_but_a_protocol_error(header: bytes, verb: int, body: bytes | None) -> None:
    frames = [b"KZ\x01" + bytes((verb,)) + header] + ([] if body is None else [body])
    assert isinstance(attempt(frames, codec.FROM_CLIENT), m.FROM_CLIENT[verb] | str)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_one_flipped_bit_is_an_error_or_another_message_but_never_a_crash(data: st.DataObject) -> None:
    message, bodies = data.draw(st.sampled_from(FULL))
    frames = [bytearray(frame) for frame in codec.encode(message, bodies)]
    position = data.draw(st.integers(0, len(frames[0]) - 1))
    frames[0][position] ^= 1 << data.draw(st.integers(0, 7))
    answer = attempt([bytes(frame) for frame in frames], table_of(type(message)))
    assert isinstance(answer, m.Message) or answer in {"BAD_FRAME", "VERSION", "FORBIDDEN_VERB"}


def test_text_that_is_no_utf_8() -> None:
    error = wrong([b"KZ\x01\x47" + b"\x92\x01\xa2\xff\xfe"])
    assert (error.code, error.verb) == ("BAD_FRAME", 0x47)


def test_nesting_without_end() -> None:
    """The arguments of ADMIN may be anything, but not anything deep."""
    error = wrong([b"KZ\x01\x4c" + b"\x93\x01\xa5pause\x81\xa1a" + b"\x91" * 100_000 + b"\x90"])
    assert (error.code, error.verb) == ("BAD_FRAME", 0x4C)


def test_headers_share_no_memory_with_what_was_received() -> None:
    """Octet fields are copies, so that keeping an id does not keep a whole message alive."""
    frames = codec.encode(m.Accept(SESSION, [m.JobRef(JOB, TOKEN)]))
    message, _ = codec.decode(frames, codec.FROM_WORKER)
    assert type(message.items[0].job_id) is bytes
    assert msgspec.structs.asdict(message.items[0]) == {"job_id": JOB, "token": TOKEN}


def test_a_frame_beyond_the_limit_ends_its_connection_and_nobody_elses() -> None:
    """ZeroMQ says nothing to the sender: that is why lengths are told in HELLO_OK and checked before sending."""
    context: zmq.Context[Any] = zmq.Context()
    router = bind_router(context, "tcp://127.0.0.1:*")
    endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
    large, small = (context.socket(zmq.DEALER) for _ in range(2))
    try:
        for dealer in (large, small):
            dealer.connect(endpoint)
            dealer.send(b"here")
            assert router.poll(20_000)
            assert router.recv_multipart()[1:] == [b"here"]
        large.send(b"x" * (m.MAX_MESSAGE + 1))
        small.send(b"x" * m.MAX_MESSAGE)
        assert router.poll(20_000)
        (_, frame) = router.recv_multipart()
        assert len(frame) == m.MAX_MESSAGE
    finally:
        context.destroy(linger=0)
