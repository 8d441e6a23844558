"""Artifacts on their own socket: the real thread and real files; the core is played by the test, which says when a row is committed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from ktrdr_broker.bulk import CHUNK, DELETE, FAILED, MAX_ARTIFACT, STOP, STORED, UPLOAD_CREDIT, ArtifactFiles, BulkServer
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.artifacts import ArtifactCache, BulkClient
from ktrdr_zmq.errors import BrokerUnreachable, ProtocolError, Refused

PATIENCE_MS = 20_000


def content(size: int) -> bytes:
    """Octets in which every chunk differs from the others."""
    return (b"%015d\n" * (size // 16 + 1) % tuple(range(size // 16 + 1)))[:size]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Bulk:
    """A broker's bulk side: the thread, its folder, and the core's end of its pipe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context: zmq.Context[Any] = zmq.Context()
        self.port = 0
        self.start()

    def start(self) -> None:
        self.files = ArtifactFiles(self.folder)
        router = self.context.socket(zmq.ROUTER)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        if self.port:
            router.bind(f"tcp://127.0.0.1:{self.port}")
        else:
            self.port = router.bind_to_random_port("tcp://127.0.0.1")
        here, there = self.context.socket(zmq.PAIR), self.context.socket(zmq.PAIR)
        name = f"inproc://{id(self)}-{id(router)}"
        here.bind(name)
        there.connect(name)
        self.core = here
        self.thread = BulkServer(router, there, self.files)
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def announced(self) -> tuple[bytes, int]:
        """What the thread tells the core: a file is complete and synced."""
        assert self.core.poll(PATIENCE_MS), "nothing was announced"
        what, digest, size = self.core.recv_multipart()
        assert what == STORED
        return digest, int.from_bytes(size, "big")

    def commit(self, digest: bytes) -> None:
        """The core has the row on disk."""
        self.core.send_multipart([STORED, digest])

    def store(self, data: bytes) -> bytes:
        """Put a file there by hand."""
        path = self.files.incoming("by-hand")
        path.write_bytes(data)
        self.files.adopt(path, sha(data))
        return sha(data)

    def stop(self) -> None:
        self.core.send_multipart([STOP])
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.core.close(0)

    def close(self) -> None:
        if self.thread.is_alive():
            self.stop()
        self.context.destroy(linger=0)


class Peer:
    """A DEALER that speaks by hand."""

    def __init__(self, bulk: Bulk) -> None:
        self._socket = bulk.context.socket(zmq.DEALER)
        self._socket.connect(bulk.endpoint)

    def say(self, message: m.Message, body: bytes | None = None) -> None:
        self._socket.send_multipart(codec.encode(message, () if body is None else (body,)))

    def raw(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def hear(self) -> Any:
        """The next message; a chunk comes with its octets."""
        assert self._socket.poll(PATIENCE_MS), "no answer"
        message, bodies = codec.decode(self._socket.recv_multipart(), codec.BULK_FROM_BROKER)
        return (message, bodies[0]) if isinstance(message, m.Chunk) else message

    def rest(self) -> list[Any]:
        """Everything that was said up to now: the thread answers in order, so the answer to a last question is the last one."""
        self.say(m.Get(999, b"\0" * 32, 0, 1))
        answers = [self.hear()]
        while getattr(answers[-1], "request", 0) != 999:
            answers.append(self.hear())
        return answers[:-1]

    def send_chunks(self, request: int, data: bytes, start: int = 0) -> None:
        for offset in range(start, len(data), CHUNK):
            piece = data[offset : offset + CHUNK]
            self.say(m.PutChunk(request, offset, len(piece)), piece)

    def put(self, request: int, data: bytes) -> None:
        self.say(m.Put(request, sha(data), len(data)))
        assert self.hear() == m.PutReady(request, UPLOAD_CREDIT)
        self.send_chunks(request, data)

    def close(self) -> None:
        self._socket.close(0)


@pytest.fixture
def bulk(tmp_path: Path) -> Iterator[Bulk]:
    bulk = Bulk(tmp_path)
    yield bulk
    bulk.close()


@pytest.fixture
def peer(bulk: Bulk) -> Iterator[Peer]:
    peer = Peer(bulk)
    yield peer
    peer.close()


def nack(code: str, request: int, verb: int) -> tuple[str, int, int]:
    return code, request, verb


def said(answer: Any) -> tuple[str, int, int]:
    assert isinstance(answer, m.Nack), answer
    assert answer.text
    return answer.code, answer.request, answer.verb


def files_in(bulk: Bulk) -> list[str]:
    return sorted(path.name for path in bulk.folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- upload


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_an_upload_is_acknowledged_after_the_commit_and_not_before(bulk: Bulk, peer: Peer, size: int) -> None:
    data = content(size)
    peer.put(1, data)
    assert bulk.announced() == (sha(data), size)
    assert bulk.files.path(sha(data)).read_bytes() == data, "complete under its name before the core hears of it"
    assert peer.rest() == []
    bulk.commit(sha(data))
    assert peer.hear() == m.PutDone(1, sha(data))


def test_an_artifact_of_nothing(bulk: Bulk, peer: Peer) -> None:
    peer.say(m.Put(1, sha(b""), 0))
    assert peer.hear() == m.PutReady(1, UPLOAD_CREDIT)
    assert bulk.announced() == (sha(b""), 0)
    bulk.commit(sha(b""))
    assert peer.hear() == m.PutDone(1, sha(b""))


def test_credit_is_given_as_chunks_arrive(bulk: Bulk, peer: Peer) -> None:
    data = content(12 * CHUNK)
    peer.say(m.Put(1, sha(data), len(data)))
    assert peer.hear() == m.PutReady(1, 8)
    sent, credit, grants = 0, 8, 0
    while sent < 12:
        while credit and sent < 12:
            peer.say(m.PutChunk(1, sent * CHUNK, CHUNK), data[sent * CHUNK : (sent + 1) * CHUNK])
            sent, credit = sent + 1, credit - 1
        if sent < 12:
            ready = peer.hear()
            assert ready == m.PutReady(1, 4)
            credit += ready.credit
            grants += 1
    assert grants == 1
    assert bulk.announced() == (sha(data), len(data))


def test_what_is_there_need_not_be_sent(bulk: Bulk, peer: Peer) -> None:
    data = content(1000)
    bulk.store(data)
    peer.say(m.Put(1, sha(data), len(data)))
    assert peer.hear() == m.PutReady(1, 0, stored=True)
    assert bulk.announced() == (sha(data), 1000), "the core may not have its row yet"
    bulk.commit(sha(data))
    assert peer.hear() == m.PutDone(1, sha(data))


def test_two_peers_with_the_same_artifact_both_hear_of_its_commit(bulk: Bulk, peer: Peer) -> None:
    other = Peer(bulk)
    data = content(CHUNK + 1)
    for uploader in (peer, other):
        uploader.say(m.Put(1, sha(data), len(data)))
        assert uploader.hear() == m.PutReady(1, UPLOAD_CREDIT)
    for uploader in (peer, other):
        uploader.send_chunks(1, data)
    assert [bulk.announced() for _ in range(2)] == [(sha(data), len(data))] * 2
    bulk.commit(sha(data))
    assert (peer.hear(), other.hear()) == (m.PutDone(1, sha(data)), m.PutDone(1, sha(data)))
    other.close()


def test_octets_that_are_not_what_the_digest_names_leave_nothing_behind(bulk: Bulk, peer: Peer) -> None:
    peer.say(m.Put(1, sha(b"other"), 5))
    assert peer.hear() == m.PutReady(1, UPLOAD_CREDIT)
    peer.say(m.PutChunk(1, 0, 5), b"words")
    assert said(peer.hear()) == nack("BAD_DIGEST", 1, 0xA2)
    assert files_in(bulk) == []


@pytest.mark.parametrize(
    "chunks",
    [
        [(1, b"abc")],
        [(0, b"abc"), (0, b"abc")],
        [(0, b"abc"), (4, b"def")],
        [(0, b"abcdefghijklmnopqrst")],
    ],
    ids=["gap", "twice", "hole", "too long"],
)
def test_chunks_that_break_the_rules_end_the_upload(bulk: Bulk, peer: Peer, chunks: list[tuple[int, bytes]]) -> None:
    peer.say(m.Put(1, sha(b"whatever"), 16))
    assert peer.hear() == m.PutReady(1, UPLOAD_CREDIT)
    for offset, data in chunks:
        peer.say(m.PutChunk(1, offset, len(data)), data)
    assert [said(answer) for answer in peer.rest()] == [nack("BAD_FRAME", 1, 0xA3)]
    peer.say(m.PutChunk(1, 3, 1), b"x")
    assert [said(answer) for answer in peer.rest()] == [nack("HELLO_REQUIRED", 1, 0xA3)]
    assert files_in(bulk) == []


def test_credit_is_for_all_but_who_ignores_it(bulk: Bulk, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is never granted more must not send more."""
    monkeypatch.setattr("ktrdr_broker.bulk.UPLOAD_CREDIT", 0)
    peer.say(m.Put(1, sha(b"abc"), 3))
    assert peer.hear() == m.PutReady(1, 0)
    peer.say(m.PutChunk(1, 0, 3), b"abc")
    assert [said(answer) for answer in peer.rest()] == [nack("BAD_FRAME", 1, 0xA3)]


def test_a_chunk_of_an_upload_that_nobody_knows(bulk: Bulk, peer: Peer) -> None:
    """The broker was restarted in the middle: begin again."""
    peer.say(m.PutChunk(7, 0, 3), b"abc")
    answer = peer.hear()
    assert said(answer) == nack("HELLO_REQUIRED", 7, 0xA3)
    assert answer.retryable


def test_the_same_request_again_begins_again(bulk: Bulk, peer: Peer) -> None:
    data = content(3 * CHUNK)
    peer.say(m.Put(1, sha(data), len(data)))
    assert peer.hear() == m.PutReady(1, UPLOAD_CREDIT)
    peer.say(m.PutChunk(1, 0, CHUNK), data[:CHUNK])
    peer.put(1, data)
    assert bulk.announced() == (sha(data), len(data))
    assert len(files_in(bulk)) == 1


def test_a_peer_may_upload_several_at_once(bulk: Bulk, peer: Peer) -> None:
    first, second = content(2 * CHUNK), content(2 * CHUNK + 1)
    for request, data in ((1, first), (2, second)):
        peer.say(m.Put(request, sha(data), len(data)))
        assert peer.hear() == m.PutReady(request, UPLOAD_CREDIT)
    for offset in range(0, len(second), CHUNK):
        for request, data in ((1, first), (2, second)):
            if offset < len(data):
                peer.say(m.PutChunk(request, offset, len(data[offset : offset + CHUNK])), data[offset : offset + CHUNK])
    assert {bulk.announced()[0] for _ in range(2)} == {sha(first), sha(second)}


@pytest.mark.parametrize("put", [m.Put(1, b"short", 5), m.Put(1, b"\0" * 32, -1), m.Put(1, b"\0" * 32, MAX_ARTIFACT + 1)])
def test_an_upload_that_cannot_be(bulk: Bulk, peer: Peer, put: m.Put) -> None:
    peer.say(put)
    assert said(peer.hear()) == nack("TOO_LARGE", 1, 0xA2)


def test_a_disk_that_is_nearly_full_takes_nothing(bulk: Bulk, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk.files, "free", lambda: 1 << 20)
    peer.say(m.Put(1, sha(b"abc"), 3))
    answer = peer.hear()
    assert said(answer) == nack("STORAGE", 1, 0xA2)
    assert answer.retryable
    monkeypatch.undo()
    peer.put(1, b"abc")
    assert bulk.announced()[0] == sha(b"abc")


def test_a_disk_that_cannot_be_written_is_told_and_the_thread_lives_on(bulk: Bulk, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bulk.files, "adopt", refuse)
    peer.put(1, b"abc")
    answer = peer.hear()
    assert said(answer) == nack("STORAGE", 1, 0xA3)
    assert answer.retryable
    assert "No space left" in answer.text
    assert files_in(bulk) == []
    monkeypatch.undo()
    peer.put(2, b"abc")
    assert bulk.announced()[0] == sha(b"abc")


# ---------------------------------------------------------------- download


def fetch(peer: Peer, digest: bytes, credit: int, start: int = 0) -> tuple[bytes, int]:
    """Download with windows of so many chunks; the number of GETs that it took."""
    data, total, asked = b"", -1, 0
    while start + len(data) != total:
        peer.say(m.Get(5, digest, start + len(data), credit))
        asked += 1
        for _ in range(credit):
            chunk, octets = peer.hear()
            assert (chunk.request, chunk.offset, chunk.size) == (5, start + len(data), len(octets))
            data += octets
            total = chunk.total
            if start + len(data) == total:
                break
    return data, asked


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 5 * CHUNK])
@pytest.mark.parametrize("credit", [1, 2, 64])
def test_a_download_in_windows(bulk: Bulk, peer: Peer, size: int, credit: int) -> None:
    data = content(size)
    digest = bulk.store(data)
    received, asked = fetch(peer, digest, credit)
    assert received == data
    assert asked == max(-(-size // CHUNK + credit - 1) // credit, -(-max(size, 1) // (CHUNK * credit)))
    assert peer.rest() == [], "never more chunks than were asked for"


@pytest.mark.parametrize("start", [1, CHUNK, CHUNK + 7, 3 * CHUNK - 1, 3 * CHUNK])
def test_a_download_goes_on_where_it_stopped(bulk: Bulk, peer: Peer, start: int) -> None:
    data = content(3 * CHUNK)
    assert fetch(peer, bulk.store(data), 2, start)[0] == data[start:]


@pytest.mark.parametrize("offset, credit", [(-1, 1), (4, 1), (0, 0), (0, 65), (0, -1)])
def test_a_download_that_makes_no_sense(bulk: Bulk, peer: Peer, offset: int, credit: int) -> None:
    peer.say(m.Get(3, bulk.store(b"abc"), offset, credit))
    assert said(peer.hear()) == nack("BAD_FRAME", 3, 0xA1)


@pytest.mark.parametrize("digest", [b"\0" * 32, b"", b"../../../../etc/passwd", b"\0" * 31])
def test_what_is_not_stored_cannot_be_had(bulk: Bulk, peer: Peer, digest: bytes) -> None:
    peer.say(m.Get(3, digest, 0, 1))
    assert said(peer.hear()) == nack("MISSING_ARTIFACT", 3, 0xA1)


def test_downloads_take_turns(bulk: Bulk, peer: Peer) -> None:
    """A model of a gigabyte does not hold up a table of a kilobyte."""
    large, small = bulk.store(content(30 * CHUNK)), bulk.store(b"small")
    peer.say(m.Get(1, large, 0, 30))
    peer.say(m.Get(2, small, 0, 1))
    order = [peer.hear()[0].request for _ in range(31)]
    assert order.index(2) < 20
    assert order.count(1) == 30


def test_uploads_go_on_while_something_is_downloaded(bulk: Bulk, peer: Peer) -> None:
    other = Peer(bulk)
    peer.say(m.Get(1, bulk.store(content(20 * CHUNK)), 0, 20))
    other.put(1, b"abc")
    assert bulk.announced()[0] == sha(b"abc")
    assert [peer.hear()[0].offset for _ in range(20)] == [n * CHUNK for n in range(20)]
    other.close()


# ---------------------------------------------------------------- deletion, restarts


def test_the_core_has_files_deleted(bulk: Bulk, peer: Peer) -> None:
    digest = bulk.store(b"abc")
    bulk.core.send_multipart([DELETE, digest])
    peer.say(m.Get(1, digest, 0, 1))
    answers = [peer.hear()]
    if not isinstance(answers[0], m.Nack):  # the request had overtaken the order
        peer.say(m.Get(1, digest, 0, 1))
        answers.append(peer.hear())
    assert said(answers[-1]) == nack("MISSING_ARTIFACT", 1, 0xA1)


def test_what_has_just_been_uploaded_again_is_not_deleted(bulk: Bulk, peer: Peer) -> None:
    """The order was given before the core heard of the new upload; its commit comes behind."""
    digest = bulk.store(b"abc")
    peer.say(m.Put(1, digest, 3))
    assert peer.hear() == m.PutReady(1, 0, stored=True)
    assert bulk.announced()[0] == digest
    bulk.core.send_multipart([DELETE, digest])
    bulk.commit(digest)
    assert peer.hear() == m.PutDone(1, digest)
    assert fetch(peer, digest, 1)[0] == b"abc"


def test_half_an_upload_is_gone_after_the_end(bulk: Bulk, peer: Peer) -> None:
    data = content(3 * CHUNK)
    peer.say(m.Put(1, sha(data), len(data)))
    assert peer.hear() == m.PutReady(1, UPLOAD_CREDIT)
    peer.say(m.PutChunk(1, 0, CHUNK), data[:CHUNK])
    assert peer.rest() == []
    assert len(files_in(bulk)) == 1
    bulk.stop()
    assert files_in(bulk) == []


def test_files_that_no_row_names_are_swept_at_the_start(tmp_path: Path) -> None:
    """Their uploader never heard PUT_DONE, so it sends them again."""
    files = ArtifactFiles(tmp_path)
    for data in (b"kept", b"left over"):
        path = files.incoming("x")
        path.write_bytes(data)
        files.adopt(path, sha(data))
    files.incoming("torn").write_bytes(b"half an upl")
    (tmp_path / "artifacts" / "README").write_text("not ours")
    files = ArtifactFiles(tmp_path)
    assert not files.incoming("torn").exists()
    assert files.sweep({sha(b"kept")}) == 1
    assert files.size(sha(b"kept")) == 4
    assert files.size(sha(b"left over")) is None
    assert (tmp_path / "artifacts" / "README").exists()


# ---------------------------------------------------------------- nonsense


@pytest.mark.parametrize(
    "frames, code",
    [
        ([b"nonsense"], "BAD_FRAME"),
        ([b""], "BAD_FRAME"),
        ([b"KZ\x02\xa1\x90"], "VERSION"),
        ([b"KZ\x01\x42\x92\x01\x90"], "FORBIDDEN_VERB"),
        ([b"KZ\x01\xa1\x90"], "BAD_FRAME"),
        ([b"KZ\x01\xa3\x93\x01\x00\x05", b"abc"], "BAD_FRAME"),
        ([b"KZ\x01\xa2\x93\x01\xa2\xff\xfe\x01"], "BAD_FRAME"),
    ],
)
def test_what_cannot_be_understood_is_answered_and_the_thread_lives_on(bulk: Bulk, peer: Peer, frames: list[bytes], code: str) -> None:
    peer.raw(*frames)
    answer = peer.hear()
    assert answer.code == code
    assert answer.versions == [1]
    assert peer.rest() == []


def test_a_peer_that_has_gone_harms_nobody(bulk: Bulk, peer: Peer) -> None:
    gone = Peer(bulk)
    gone.say(m.Get(1, bulk.store(content(10 * CHUNK)), 0, 10))
    gone.say(m.Put(2, sha(b"abc"), 3))
    gone.close()
    assert peer.rest() == []
    peer.put(1, b"abc")
    assert bulk.announced()[0] == sha(b"abc")


# ---------------------------------------------------------------- with the client that the project has


class Committing:
    """Plays a core that commits at once, on the running loop."""

    def __init__(self, bulk: Bulk) -> None:
        self._core = bulk.core
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._core.getsockopt(zmq.FD), self._ready)
        self._ready()

    def _ready(self) -> None:
        while self._core.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # after each message anew: the descriptor tells of changes only
            _, digest, _ = self._core.recv_multipart()
            self._core.send_multipart([STORED, digest])

    def end(self) -> None:
        self._loop.remove_reader(self._core.getsockopt(zmq.FD))


async def test_the_client_puts_and_gets(bulk: Bulk, tmp_path: Path) -> None:
    core, client = Committing(bulk), BulkClient(bulk.context, bulk.endpoint)
    try:
        for size in (0, 5, 20 * CHUNK + 3):
            source = tmp_path / f"source-{size}"
            source.write_bytes(content(size))
            digest = await client.put(source)
            assert digest == sha(content(size))
            assert await client.put(content(size)) == digest
            target = await client.get(digest, tmp_path / "target")
            assert target.read_bytes() == content(size)
        several = await asyncio.gather(*(client.put(b"number %d" % n) for n in range(50)))
        assert several == [sha(b"number %d" % n) for n in range(50)]
        assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == [], "nothing half-written stays"
    finally:
        client.close()
        core.end()


async def test_the_client_takes_a_broken_download_up_where_it_stopped(bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(6 * CHUNK)
    digest = bulk.store(data)
    asked: list[int] = []
    lost: list[m.Message] = []
    get, send = BulkServer._get, BulkServer._send

    def note(server: BulkServer, peer: bytes, message: m.Get) -> None:
        asked.append(message.offset)
        get(server, peer, message)

    def lose(server: BulkServer, peer: bytes, message: m.Message, bodies: tuple[bytes, ...] = ()) -> bool:
        if isinstance(message, m.Chunk) and message.offset == 3 * CHUNK and not lost:
            lost.append(message)
            return True
        return send(server, peer, message, bodies)

    monkeypatch.setattr(BulkServer, "_get", note)
    monkeypatch.setattr(BulkServer, "_send", lose)
    client = BulkClient(bulk.context, bulk.endpoint, silence=0.3)
    try:
        assert (await client.get(digest, tmp_path / "target")).read_bytes() == data
    finally:
        client.close()
    assert lost
    assert asked == [0, 3 * CHUNK]


async def test_the_client_begins_an_upload_again_that_the_broker_has_forgotten(bulk: Bulk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker is restarted in the middle: its thread ends, another one comes up on the same port and folder."""
    data = content(40 * CHUNK)
    begun = threading.Event()
    chunk = BulkServer._chunk

    def note(server: BulkServer, peer: bytes, message: m.PutChunk, data: bytes) -> None:
        begun.set()
        chunk(server, peer, message, data)

    monkeypatch.setattr(BulkServer, "_chunk", note)
    core, client = Committing(bulk), BulkClient(bulk.context, bulk.endpoint, silence=0.5)
    try:
        upload = asyncio.get_running_loop().create_task(client.put(data))
        await asyncio.to_thread(begun.wait, 20)
        core.end()
        await asyncio.to_thread(bulk.stop)
        bulk.start()
        core = Committing(bulk)
        assert await asyncio.wait_for(upload, 40) == sha(data)
        assert bulk.files.path(sha(data)).read_bytes() == data
    finally:
        client.close()
        core.end()


async def test_an_artifact_that_is_damaged_on_disk_is_not_handed_on(bulk: Bulk, tmp_path: Path) -> None:
    digest = bulk.store(content(CHUNK + 5))
    path = bulk.files.path(digest)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    client = BulkClient(bulk.context, bulk.endpoint)
    try:
        with pytest.raises(ProtocolError, match="damaged") as caught:
            await client.get(digest, tmp_path / "target")
        assert caught.value.code == "BAD_DIGEST"
        assert [name for name in os.listdir(tmp_path) if "target" in name] == []
    finally:
        client.close()


async def test_refusals_reach_the_caller(bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = BulkClient(bulk.context, bulk.endpoint)
    try:
        with pytest.raises(Refused) as caught:
            await client.get(b"\0" * 32, tmp_path / "target")
        assert (caught.value.code, caught.value.retryable) == ("MISSING_ARTIFACT", False)
        monkeypatch.setattr(bulk.files, "free", lambda: 0)
        with pytest.raises(Refused) as caught:
            await client.put(b"abc")
        assert (caught.value.code, caught.value.retryable) == ("STORAGE", True)
    finally:
        client.close()


async def test_a_file_that_becomes_shorter_is_no_artifact(bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"abcdef")
    digest = sha(b"abcdef")
    monkeypatch.setattr("ktrdr_zmq.artifacts._size", lambda _: 9)
    client = BulkClient(bulk.context, bulk.endpoint)
    try:
        with pytest.raises(OSError, match="shorter"):
            await client.put(source, digest)
    finally:
        client.close()


async def test_without_a_broker_a_transfer_ends_after_its_patience(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    client = BulkClient(context, "tcp://127.0.0.1:1", silence=0.1, patience=0.3)
    try:
        with pytest.raises(BrokerUnreachable, match="127.0.0.1:1"):
            await client.put(b"abc")
    finally:
        client.close()
        context.term()


async def test_a_cache_downloads_once_and_keeps_what_was_used_last(bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [bulk.store(b"%d" % n * 100) for n in range(4)]
    asked: list[bytes] = []
    get = BulkServer._get

    def note(server: BulkServer, peer: bytes, message: m.Get) -> None:
        asked.append(message.digest)
        get(server, peer, message)

    monkeypatch.setattr(BulkServer, "_get", note)
    client, cache = BulkClient(bulk.context, bulk.endpoint), ArtifactCache(tmp_path / "cache", limit=250)
    try:
        first = await asyncio.gather(*(cache.fetch(client, digests[0]) for _ in range(10)))
        assert asked == [digests[0]], "callers at the same time share one download"
        assert {path.read_bytes() for path in first} == {b"0" * 100}
        for age, digest in enumerate(digests[1:], 1):
            path = await cache.fetch(client, digest)
            os.utime(path, (1000 + age, 1000 + age))
        os.utime(cache.path(digests[0]), (1000, 1000))
        cache.trim(keep=frozenset({digests[0]}))
        assert [digest for digest in digests if cache.path(digest).exists()] == [digests[0], digests[3]]
    finally:
        client.close()


def test_a_thread_that_fails_says_so(bulk: Bulk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The broker ends then: without its artifacts it must not go on as if it had them."""
    monkeypatch.setattr(ArtifactFiles, "delete", lambda *_: 1 / 0)
    bulk.core.send_multipart([DELETE, b"d" * 32])
    assert bulk.core.poll(PATIENCE_MS)
    assert bulk.core.recv_multipart() == [FAILED]
    bulk.thread.join(20)
    assert "ZeroDivisionError" in caplog.text
