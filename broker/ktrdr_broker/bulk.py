"""Artifacts on disk and on their own socket and thread, so that a hundred megabytes of model never delay a heartbeat.

The thread owns files and nothing else: it never opens the database. An upload is hashed while it arrives, synced, renamed, and then
announced to the core; PUT_DONE leaves after the core's commit. A file that was not announced is removed at the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import zmq

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.errors import ProtocolError

log = logging.getLogger(__name__)

CHUNK: Final = 1 << 20
UPLOAD_CREDIT: Final = 8
IDLE_UPLOAD_S: Final = 120.0
MAX_UPLOADS: Final = 256
MAX_ARTIFACT: Final = 8 << 30
RESERVE: Final = 64 << 20
"""Octets that stay free on the disk: an artifact that would eat them is refused, so that rows can still be committed."""
DIGEST_SIZE: Final = 32

STORED: Final = b"S"
DELETE: Final = b"D"
STOP: Final = b"Q"
FAILED: Final = b"F"


def artifact_path(folder: Path, digest: bytes) -> Path:
    """Where the artifact of a digest is below a broker's data folder, or would be."""
    name = digest.hex()
    return folder / "artifacts" / name[:2] / name


class ArtifactFiles:
    """Files named by their SHA-256 under ``<folder>/artifacts``.

    Parameters
    ----------
    folder : Path
        The broker's data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = folder / "artifacts"
        self._incoming = folder / "incoming"
        self._root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir()

    def path(self, digest: bytes) -> Path:
        """Where an artifact is, or would be."""
        return artifact_path(self._folder, digest)

    def size(self, digest: bytes) -> int | None:
        """An artifact's size, None if it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def incoming(self, name: str) -> Path:
        """A place for octets that are no artifact yet."""
        return self._incoming / name

    def adopt(self, temporary: Path, digest: bytes) -> None:
        """Let a complete and synced file become the artifact, durably."""
        target = self.path(digest)
        target.parent.mkdir(exist_ok=True)
        temporary.replace(target)
        _sync_folder(target.parent)

    def delete(self, digest: bytes) -> None:
        """Remove an artifact whose row is gone."""
        self.path(digest).unlink(missing_ok=True)

    def free(self) -> int:
        """Octets free on the disk."""
        return shutil.disk_usage(self._root).free

    def sweep(self, known: set[bytes]) -> int:
        """Remove files that no row names: their uploader never heard PUT_DONE."""
        removed = 0
        for path in self._root.glob("??/*"):
            try:
                digest = bytes.fromhex(path.name)
            except ValueError:
                continue
            if digest not in known:
                path.unlink(missing_ok=True)
                removed += 1
        return removed


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Upload:
    """One artifact on its way in."""

    def __init__(self, put: m.Put, path: Path) -> None:
        self.digest = put.digest
        self.total = put.total
        self.path = path
        self.file: BinaryIO = path.open("wb")
        self.hash = hashlib.sha256()
        self.offset = 0
        self.granted = UPLOAD_CREDIT
        self.chunks = 0
        self.seen = time.monotonic()

    def discard(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


class _Download(NamedTuple):
    peer: bytes
    get: m.Get


class BulkServer:
    """Serves GET and PUT on the bulk socket, in a thread of its own.

    Parameters
    ----------
    socket : zmq.Socket
        A bound ROUTER; the thread takes it over.
    pipe : zmq.Socket
        One end of an inproc PAIR; the core holds the other one.
    files : ArtifactFiles
    """

    def __init__(self, socket: Any, pipe: Any, files: ArtifactFiles) -> None:
        self._thread = threading.Thread(target=self._run, name="bulk", daemon=True)  # not a subclass: its private names would be ours
        self._socket = socket
        self._pipe = pipe
        self._files = files
        self._uploads: dict[tuple[bytes, int], _Upload] = {}
        self._waiting: dict[bytes, list[tuple[bytes, int]]] = {}
        self._downloads: deque[_Download] = deque()
        self._count = 0

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the end, which STOP in the pipe asks for."""
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:  # whatever it is: a broker without its artifacts must not go on as if it had them
            log.exception("the bulk thread has failed")
            self._pipe.send_multipart([FAILED])
        finally:
            for upload in self._uploads.values():
                upload.discard()
            self._socket.close(200)
            self._pipe.close(-1)

    def _serve(self) -> None:
        """Serve until told to stop."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._pipe, zmq.POLLIN)
        going = True
        while going:
            ready = dict(poller.poll(0 if self._downloads else 10_000))
            if self._pipe in ready:
                going = self._orders()
            if self._socket in ready:
                self._requests()
            self._send_chunks()
            self._expire()

    # ------------------------------------------------------------ orders of the core

    def _orders(self) -> bool:
        while True:
            try:
                order = self._pipe.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return True
            if order[0] == STOP:
                return False
            if order[0] == STORED:
                for peer, request in self._waiting.pop(order[1], []):
                    self._send(peer, m.PutDone(request, order[1]))
            elif order[0] == DELETE and order[1] not in self._waiting:
                self._files.delete(order[1])

    # ------------------------------------------------------------ requests

    def _requests(self) -> None:
        for _ in range(64):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                message, bodies = codec.decode(frames, codec.BULK_TO_BROKER)
            except ProtocolError as error:
                self._send(peer, m.Nack(code=error.code, verb=error.verb, text=error.message, versions=[m.MAJOR]))
                continue
            try:
                self._answer(peer, message, bodies)
            except OSError as error:
                log.error("the artifact folder cannot be used: %s", error)  # noqa: TRY400  # the reason says it all
                self._refuse(peer, message, "STORAGE", f"The broker cannot use its disk: {error.strerror or error}", retryable=True)

    def _answer(self, peer: bytes, message: Any, bodies: list[bytes]) -> None:
        if isinstance(message, m.Get):
            self._get(peer, message)
        elif isinstance(message, m.Put):
            self._put(peer, message)
        elif isinstance(message, m.PutChunk):
            self._chunk(peer, message, bodies[0])

    def _get(self, peer: bytes, get: m.Get) -> None:
        size = self._files.size(get.digest) if len(get.digest) == DIGEST_SIZE else None
        if size is None:
            self._refuse(peer, get, "MISSING_ARTIFACT", "This artifact is not stored.")
        elif not 0 <= get.offset <= size or not 1 <= get.credit <= 64:
            self._refuse(peer, get, "BAD_FRAME", "The offset or the credit of this GET makes no sense.")
        else:
            self._downloads.append(_Download(peer, get))

    def _send_chunks(self) -> None:
        """One chunk of one download for each turn: uploads and other downloads are not kept waiting."""
        if not self._downloads:
            return
        peer, get = self._downloads.popleft()
        try:
            with self._files.path(get.digest).open("rb") as file:
                total = os.fstat(file.fileno()).st_size
                file.seek(get.offset)
                data = file.read(CHUNK)
        except OSError:
            self._refuse(peer, get, "MISSING_ARTIFACT", "This artifact is not stored any more.")
            return
        if not self._send(peer, m.Chunk(get.request, get.offset, total, len(data)), (data,)):
            return
        following = get.offset + len(data)
        if get.credit > 1 and following < total:
            self._downloads.append(_Download(peer, m.Get(get.request, get.digest, following, get.credit - 1)))

    def _put(self, peer: bytes, put: m.Put) -> None:
        if len(put.digest) != DIGEST_SIZE or not 0 <= put.total <= MAX_ARTIFACT:
            self._refuse(peer, put, "TOO_LARGE", f"An artifact has a SHA-256 digest and at most {MAX_ARTIFACT:,} octets.")
            return
        old = self._uploads.pop((peer, put.request), None)
        if old is not None:
            old.discard()
        if self._files.size(put.digest) == put.total:
            self._send(peer, m.PutReady(put.request, 0, stored=True))
            self._announce(peer, put.request, put.digest, put.total)
            return
        if len(self._uploads) >= MAX_UPLOADS:
            self._refuse(peer, put, "QUEUE_FULL", "Too many uploads at once.", retryable=True)
            return
        if self._files.free() - put.total < RESERVE:
            self._refuse(peer, put, "STORAGE", "The broker's disk is nearly full.", retryable=True)
            return
        self._count += 1
        upload = self._uploads[peer, put.request] = _Upload(put, self._files.incoming(str(self._count)))
        self._send(peer, m.PutReady(put.request, UPLOAD_CREDIT))
        if upload.total == 0:
            self._finish(peer, put.request, upload)

    def _chunk(self, peer: bytes, chunk: m.PutChunk, data: bytes) -> None:
        upload = self._uploads.get((peer, chunk.request))
        if upload is None:
            self._refuse(peer, chunk, "HELLO_REQUIRED", "This upload is not known here; begin it again with PUT.", retryable=True)
            return
        upload.seen = time.monotonic()
        upload.chunks += 1
        if chunk.offset != upload.offset or upload.offset + len(data) > upload.total or upload.chunks > upload.granted:
            self._drop(peer, chunk.request)
            self._refuse(peer, chunk, "BAD_FRAME", "A chunk out of order, past the end, or beyond its credit.")
            return
        try:
            upload.file.write(data)
        except OSError:
            self._drop(peer, chunk.request)
            raise
        upload.hash.update(data)
        upload.offset += len(data)
        if upload.offset == upload.total:
            self._finish(peer, chunk.request, upload)
        elif upload.granted - upload.chunks <= UPLOAD_CREDIT // 2:
            upload.granted += UPLOAD_CREDIT // 2
            self._send(peer, m.PutReady(chunk.request, UPLOAD_CREDIT // 2))

    def _finish(self, peer: bytes, request: int, upload: _Upload) -> None:
        del self._uploads[peer, request]
        if upload.hash.digest() != upload.digest:
            upload.discard()
            self._refuse(peer, m.Put(request, upload.digest, upload.total), "BAD_DIGEST", "What arrived is not what the digest names.")
            return
        try:
            upload.file.flush()
            os.fsync(upload.file.fileno())
            upload.file.close()
            self._files.adopt(upload.path, upload.digest)
        except OSError:
            upload.discard()
            raise
        self._announce(peer, request, upload.digest, upload.total)

    def _announce(self, peer: bytes, request: int, digest: bytes, size: int) -> None:
        self._waiting.setdefault(digest, []).append((peer, request))
        self._pipe.send_multipart([STORED, digest, size.to_bytes(8, "big")])

    def _drop(self, peer: bytes, request: int) -> None:
        upload = self._uploads.pop((peer, request), None)
        if upload is not None:
            with contextlib.suppress(OSError):
                upload.discard()

    def _expire(self) -> None:
        """Give up on uploads whose sender has gone."""
        horizon = time.monotonic() - IDLE_UPLOAD_S
        for key in [key for key, upload in self._uploads.items() if upload.seen < horizon]:
            self._drop(*key)

    # ------------------------------------------------------------ answers

    def _refuse(self, peer: bytes, message: Any, code: str, text: str, *, retryable: bool = False) -> None:
        verb = m.VERBS[type(message)]
        self._send(peer, m.Nack(code=code, verb=verb, request=message.request, retryable=retryable, text=text, versions=[m.MAJOR]))

    def _send(self, peer: bytes, message: m.Message, bodies: tuple[bytes, ...] = ()) -> bool:
        try:
            self._socket.send_multipart([peer, *codec.encode(message, bodies)], zmq.DONTWAIT)
        except zmq.ZMQError:  # the peer is gone or does not read: it asks again
            return False
        return True
