"""Golden octets: what every message looks like on the wire. To write them anew: ``python -m tests.unit.vectors.generate``."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import msgspec
import pytest

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import JobSpec
from tests.unit.samples import BARE, FULL, RAW_SPEC, SHORTEST_SPEC, SPEC
from tests.unit.vectors.generate import FOLDER, TABLES, case, documents, plain, text

FILES = sorted(FOLDER.glob("*.json"))
CASES = [(path.stem, name) for path in FILES for name in json.loads(path.read_text(encoding="utf-8"))["cases"]]
SAMPLES = {(type(message).__name__, "full"): (message, bodies) for message, bodies in FULL}
SAMPLES |= {(type(message).__name__, "bare"): (message, bodies) for message, bodies in BARE}
CODECS = [codec.decoders(table) for table in TABLES.values()]


def stored(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def frames_of(name: str, which: str) -> list[bytes]:
    return [bytes.fromhex(frame) for frame in stored(name)["cases"][which]["frames"]]


def decoded(name: str, frames: list[bytes]) -> list[tuple[Any, list[bytes]]]:
    """The message as each kind of peer that may get it understands it."""
    verb = int(stored(name)["verb"], 16)
    return [codec.decode(frames, table) for table in CODECS if verb in table]


def test_every_message_has_its_octets() -> None:
    assert {path.stem for path in FILES} == {kind.__name__ for kind in m.VERBS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_files_are_those_that_would_be_written_now(path: Any) -> None:
    """A difference is a change of the wire: allowed are fields appended with a default, and a new major version."""
    assert path.read_text(encoding="utf-8") == text(documents()[path.stem]), "python -m tests.unit.vectors.generate"


@pytest.mark.parametrize("name, which", CASES)
def test_octets_decode_to_the_message(name: str, which: str) -> None:
    message, bodies = SAMPLES[name, which]
    answers = decoded(name, frames_of(name, which))
    assert answers
    for answer, parts in answers:
        assert answer == message
        assert parts == bodies
        assert plain(answer) == stored(name)["cases"][which]["message"]


@pytest.mark.parametrize("name, which", CASES)
def test_the_message_encodes_to_the_octets(name: str, which: str) -> None:
    message, bodies = SAMPLES[name, which]
    assert case(message, bodies) == stored(name)["cases"][which]


@pytest.mark.parametrize("name, which", CASES)
def test_headers_are_plain_messagepack_arrays_in_the_order_of_the_fields(name: str, which: str) -> None:
    """Read with another library, as a second implementation would."""
    header = frames_of(name, which)[0]
    assert header[:4] == b"KZ" + bytes((m.MAJOR, int(stored(name)["verb"], 16)))
    values = msgpack.unpackb(header[4:], strict_map_key=False)
    message, _ = SAMPLES[name, which]
    assert isinstance(values, list)
    assert len(values) == len(message.__struct_fields__)


@pytest.mark.parametrize("name, which", [pair for pair in CASES if pair[1] == "bare"])
def test_fields_with_a_default_may_be_left_out_at_the_end(name: str, which: str) -> None:
    """That is how an older peer speaks to a newer one."""
    message, bodies = SAMPLES[name, which]
    required = sum(field.required for field in msgspec.structs.fields(type(message)))
    header, *body = frames_of(name, which)
    values = msgpack.unpackb(header[4:], strict_map_key=False)
    for answer, parts in decoded(name, [header[:4] + msgpack.packb(values[:required]), *body]):
        assert answer == message
        assert parts == bodies


@pytest.mark.parametrize("name, which", CASES)
def test_fields_that_a_newer_peer_appends_are_skipped(name: str, which: str) -> None:
    message, _ = SAMPLES[name, which]
    header, *body = frames_of(name, which)
    values = [*msgpack.unpackb(header[4:], strict_map_key=False), "from the future", {"and": "a map"}]
    for answer, _ in decoded(name, [header[:4] + msgpack.packb(values), *body]):
        assert answer == message


def test_the_specification_of_a_job_may_be_cut_short() -> None:
    """It travels as octets within SUBMIT and DISPATCH; what is left out at its end has its default."""
    assert msgspec.msgpack.decode(RAW_SPEC, type=JobSpec) == SPEC
    assert len(msgpack.unpackb(RAW_SPEC)) == len(SPEC.__struct_fields__)
    assert msgspec.msgpack.decode(SHORTEST_SPEC, type=JobSpec) == JobSpec("echo")
