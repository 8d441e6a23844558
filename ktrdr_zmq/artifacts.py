"""Artifacts over the bulk socket: files named by their SHA-256, in chunks paced by credit, resumed where a connection broke.

Used by clients (inputs and results) and by a worker's agent (the same, beside its heartbeats): every await gives the loop back after at
most one chunk. A file arrives under a temporary name and is renamed when its digest is right; nothing half-written is ever seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import itertools
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import zmq

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.errors import BrokerUnreachable, ProtocolError, Refused
from ktrdr_zmq.transport import Channel, connect_dealer

CHUNK: Final = 1 << 20
WINDOW: Final = 16
"""Chunks asked for at a time in a download."""
MAX_DAMAGED: Final = 3


class TransferBroken(Exception):
    """The transfer stopped half-way and can be taken up again."""


class _Transfer:
    """One put or get: when it last got on, and how often it arrived damaged."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.damaged = 0
        self.moved()

    def moved(self) -> None:
        self._moved_at = self._loop.time()

    @property
    def stuck_for(self) -> float:
        return self._loop.time() - self._moved_at


class BulkClient:
    """Puts and gets artifacts; any number at a time, on one connection.

    Parameters
    ----------
    context : zmq.Context
    endpoint : str
        The broker's bulk socket, for example ``tcp://192.168.1.100:5558``.
    silence : float
        Seconds without a word from the broker after which a transfer is taken up anew.
    patience : float
        Seconds without progress after which a transfer fails.
    """

    def __init__(self, context: zmq.Context[Any], endpoint: str, *, silence: float = 5.0, patience: float = 60.0) -> None:
        self._context = context
        self._endpoint = endpoint
        self._silence = silence
        self._patience = patience
        self._channel: Channel | None = None
        self._requests = itertools.count(1)
        self._inboxes: dict[int, asyncio.Queue[tuple[Any, list[bytes]]]] = {}
        self._writable = asyncio.Event()
        self._heard_at = 0.0

    def close(self) -> None:
        """Close the connection; transfers under way fail."""
        if self._channel is not None:
            self._channel.close(0)
            self._channel = None

    # ------------------------------------------------------------ put

    async def put(self, source: Path | bytes, digest: bytes | None = None) -> bytes:
        """Upload a file or octets, unless the broker has them already.

        Returns
        -------
        bytes
            The SHA-256 digest; the artifact is durable then.

        Raises
        ------
        Refused
            When the broker does not take it, for example because its disk is nearly full.
        BrokerUnreachable
            After ``patience`` seconds without progress.
        OSError
            When the file cannot be read, or has become shorter meanwhile.
        """
        if digest is None:
            digest = await asyncio.to_thread(file_digest, source) if isinstance(source, Path) else hashlib.sha256(source).digest()
        total = _size(source)
        transfer = _Transfer()
        async for _ in self._attempts(transfer):
            with contextlib.suppress(TransferBroken):
                await self._put_once(source, digest, total, transfer)
                return digest
        raise self._unreachable()

    async def _put_once(self, source: Path | bytes, digest: bytes, total: int, transfer: _Transfer) -> None:
        async with self._request() as (request, inbox):
            await self._send(m.Put(request, digest, total))
            with _opened(source) as file:
                sent = credit = 0
                while True:
                    while credit and sent < total:
                        data = file.read(CHUNK)
                        if not data:
                            raise OSError(errno.EIO, "the file became shorter while it was sent", str(source))
                        await self._send(m.PutChunk(request, sent, len(data)), data)
                        sent += len(data)
                        credit -= 1
                        transfer.moved()
                    reply, _ = await self._reply(inbox)
                    if isinstance(reply, m.PutDone):
                        return
                    if isinstance(reply, m.PutReady):
                        credit = total if reply.stored else credit + reply.credit
                        sent = total if reply.stored else sent

    # ------------------------------------------------------------ get

    async def get(self, digest: bytes, to: Path) -> Path:
        """Download an artifact to a path, which must not be in use by another download.

        Raises
        ------
        Refused
            With code MISSING_ARTIFACT when the broker does not have it.
        BrokerUnreachable
            After ``patience`` seconds without progress.
        ProtocolError
            When what arrives is not what the digest names, again and again.
        """
        transfer = _Transfer()
        partial = to.with_name(f".{to.name}.{secrets.token_hex(4)}")
        try:
            async for _ in self._attempts(transfer):
                with contextlib.suppress(TransferBroken):
                    await self._get_once(digest, partial, transfer)
                    partial.replace(to)
                    return to
        finally:
            partial.unlink(missing_ok=True)
        raise self._unreachable()

    async def _get_once(self, digest: bytes, partial: Path, transfer: _Transfer) -> None:
        async with self._request() as (request, inbox):
            with partial.open("ab") as file:
                offset, total = file.tell(), -1
                while offset != total:
                    await self._send(m.Get(request, digest, offset, WINDOW))
                    for _ in range(WINDOW):
                        reply, bodies = await self._reply(inbox)
                        if not isinstance(reply, m.Chunk) or reply.offset != offset:
                            raise TransferBroken
                        file.write(bodies[0])
                        offset, total = offset + reply.size, reply.total
                        transfer.moved()
                        if offset == total:
                            break
        if not await asyncio.to_thread(_is_right, partial, digest):
            transfer.damaged += 1
            if transfer.damaged >= MAX_DAMAGED:
                raise ProtocolError(f"Artifact {digest.hex()[:8]} arrived damaged {MAX_DAMAGED} times.", code="BAD_DIGEST")
            raise TransferBroken

    # ------------------------------------------------------------ the connection

    async def _attempts(self, transfer: _Transfer) -> AsyncIterator[int]:
        """Try again, until nothing has moved for as long as the patience lasts."""
        for attempt in itertools.count():
            yield attempt
            if transfer.stuck_for > self._patience:
                return
            if asyncio.get_running_loop().time() - self._heard_at > self._silence:
                self.close()  # a new connection: the old one may be the trouble
            await asyncio.sleep(min(0.2 * 2 ** min(attempt, 5), 5.0) * (0.5 + secrets.randbelow(1000) / 1000))

    def _unreachable(self) -> BrokerUnreachable:
        return BrokerUnreachable(f"The broker's bulk port does not answer at {self._endpoint}; nothing moved for {self._patience:.0f} s.")

    @contextlib.asynccontextmanager
    async def _request(self) -> AsyncIterator[tuple[int, asyncio.Queue[tuple[Any, list[bytes]]]]]:
        request = next(self._requests)
        inbox = self._inboxes[request] = asyncio.Queue()
        try:
            yield request, inbox
        finally:
            del self._inboxes[request]

    def _connect(self) -> Channel:
        socket = connect_dealer(self._context, self._endpoint, reconnect_ms=100 + secrets.randbelow(200), hwm=64)
        self._channel = Channel(socket, self._on_batch, on_writable=self._writable.set, budget=16)
        self._channel.open()
        self._heard_at = asyncio.get_running_loop().time()
        return self._channel

    async def _send(self, message: m.Message, body: bytes = b"") -> None:
        channel = self._channel or self._connect()
        frames = codec.encode(message, (body,) if body else ())
        while not channel.closed and not channel.send(frames):
            self._writable.clear()
            try:
                await asyncio.wait_for(self._writable.wait(), self._silence)
            except TimeoutError:
                raise TransferBroken from None
        await asyncio.sleep(0)

    async def _reply(self, inbox: asyncio.Queue[tuple[Any, list[bytes]]]) -> tuple[Any, list[bytes]]:
        try:
            reply, bodies = await asyncio.wait_for(inbox.get(), self._silence)
        except TimeoutError:
            raise TransferBroken from None
        if isinstance(reply, m.Nack):
            if reply.code == "HELLO_REQUIRED":  # the broker was restarted in the middle of the upload
                raise TransferBroken
            raise Refused(reply.text, code=reply.code, retryable=reply.retryable, retry_after=reply.retry_after)
        return reply, bodies

    def _on_batch(self, batch: list[list[bytes]]) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        for frames in batch:
            try:
                message, bodies = codec.decode(frames, codec.BULK_FROM_BROKER)
            except ProtocolError:
                continue
            inbox = self._inboxes.get(message.request)
            if inbox is not None:
                inbox.put_nowait((message, bodies))


def _opened(source: Path | bytes) -> contextlib.AbstractContextManager[BinaryIO]:
    if isinstance(source, Path):
        return source.open("rb")
    return io.BytesIO(source)


def _size(source: Path | bytes) -> int:
    return source.stat().st_size if isinstance(source, Path) else len(source)


def _is_right(partial: Path, digest: bytes) -> bool:
    """Whether a downloaded file is what its name says; it is removed if not."""
    if file_digest(partial) == digest:
        return True
    partial.unlink()
    return False


def file_digest(path: Path) -> bytes:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class ArtifactCache:
    """Downloaded artifacts in a folder, named by their digest; the least recently used go first.

    Parameters
    ----------
    folder : Path
    limit : int
        Octets that may stay.
    """

    def __init__(self, folder: Path, limit: int = 2 << 30) -> None:
        self._folder = folder
        self._limit = limit
        self._coming: dict[bytes, asyncio.Task[Path]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*"):
            leftover.unlink(missing_ok=True)

    def path(self, digest: bytes) -> Path:
        """Where an artifact is, or would be."""
        return self._folder / digest.hex()

    async def fetch(self, bulk: BulkClient, digest: bytes) -> Path:
        """The artifact's file, downloaded if it is not here yet; callers at the same time share one download."""
        path = self.path(digest)
        if path.exists():
            os.utime(path)
            return path
        task = self._coming.get(digest)
        if task is None:
            task = self._coming[digest] = asyncio.get_running_loop().create_task(bulk.get(digest, path))
            task.add_done_callback(lambda _: self._coming.pop(digest, None))
        await asyncio.shield(task)
        return path

    def trim(self, keep: frozenset[bytes] = frozenset()) -> None:
        """Remove the least recently used files beyond the limit, but none of ``keep``."""
        names = {digest.hex() for digest in keep}
        files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.iterdir() if path.name[0] != ".")
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self._limit:
                return
            if path.name not in names:
                path.unlink(missing_ok=True)
                total -= size
