"""The broker's shell: sockets, the pure core, the store and the bulk thread, tied together.

It decides nothing. Each turn: hand every message that came to the core, drain it, commit once, send in order. When a commit fails, its
sends are held and tried again; only urgent ones (PONG, NACK to a stranger) go out meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import zmq

from ktrdr_broker.bulk import DELETE, FAILED, RESERVE, STOP, STORED, ArtifactFiles, BulkServer
from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.core import Broker, Port
from ktrdr_broker.model import ArtifactDelete, ArtifactRow, ArtifactStored, Found, Publish, Saves, Send, ToClient, ToWorker
from ktrdr_broker.sqlite import SqliteStore
from ktrdr_broker.startup import FolderLock, bind_all, bind_free, raise_file_limit
from ktrdr_broker.store import DamagedError, StorageError, Store
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.errors import EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, ProtocolError
from ktrdr_zmq.loops import end_on_error
from ktrdr_zmq.transport import Channel
from ktrdr_zmq.version import __version__

log = logging.getLogger(__name__)

DISK_CHECK_S: Final = 2.0
RETRY_COMMIT_S: Final = 0.5


class ServerSettings(NamedTuple):
    """What the shell is told from outside.

    ``base_port`` 0 takes four free ports in a row. ``fsync`` False trades the power-cut guarantee for speed. ``restored``: the database is
    an older copy, and meant to be.
    """

    bind: str
    base_port: int
    data_dir: Path
    core: BrokerConfig
    fsync: bool = True
    restored: bool = False


class BrokerServer:
    """A running broker.

    Parameters
    ----------
    settings : ServerSettings

    Raises
    ------
    ConfigError, StartRefused, StorageError
        When it cannot start; nothing is left open then.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        raise_file_limit()
        self._lock = FolderLock(settings.data_dir)
        self._store: Store = SqliteStore(settings.data_dir, fsync=settings.fsync)
        self._files = ArtifactFiles(settings.data_dir)
        if settings.restored:
            self._store.renew()
        # The epoch is committed before anything is bound: a peer can never meet a broker whose epoch might be taken back.
        loaded = self._store.load(time.time_ns() // 1000)
        self._files.sweep({row.digest for row in loaded.artifacts})
        self._forget_lost_files(loaded.artifacts)
        self._context: zmq.Context[Any] = zmq.Context()
        if settings.base_port:
            self._sockets = bind_all(self._context, settings.bind, settings.base_port)
        else:
            self._sockets = bind_free(self._context, settings.bind)
        self.base_port = self._sockets.base_port
        self.core = Broker(settings.core, loaded, time.monotonic(), time.time_ns() // 1000, __version__)
        self._waiting = Saves()
        self._held: list[Send] = []
        self._turn_planned = False
        self._timer: asyncio.TimerHandle | None = None
        self._planned = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._next_disk_check = 0.0
        self._trouble = ""
        self._failed = False
        self._stop = asyncio.Event()
        if not loaded.clean:
            log.info("the last broker on this folder did not end cleanly; the database is intact")
        log.info("epoch %d; %d unfinished jobs, %d artifacts", loaded.epoch, len(loaded.jobs), len(loaded.artifacts))

    def _forget_lost_files(self, rows: list[ArtifactRow]) -> None:
        """A file that somebody removed, or that was cut short, is to be uploaded again when it is needed."""
        lost = [row for row in rows if self._files.size(row.digest) != row.size]
        if lost:
            log.warning("%d artifacts are gone or have another size than they had: they must be uploaded again", len(lost))
            self._store.commit(Saves(artifacts_gone=[row.digest for row in lost]))
            for row in lost:
                rows.remove(row)
                self._files.delete(row.digest)

    # ------------------------------------------------------------ life

    async def run(self, on_ready: Callable[[int], None]) -> int:
        """Serve until `stop`; returns the exit code: 0, 3 when the core gave up, 1 when something here has failed."""
        end_on_error(self._fail)
        here, there = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        here.bind("inproc://bulk")
        there.connect("inproc://bulk")
        bulk = BulkServer(self._sockets.bulk, there, self._files)
        self._workers = Channel(self._sockets.workers, self._from_workers, budget=1024, with_origin=True)
        self._clients = Channel(self._sockets.clients, self._from_clients, budget=256)
        self._events = Channel(self._sockets.events, self._from_watchers, budget=256)
        self._bulk = Channel(here, self._from_bulk)
        channels = (self._workers, self._clients, self._events, self._bulk)
        for channel in channels:
            channel.open()
        bulk.start()
        # What lives for the whole run need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        self._plan_tick()
        on_ready(self.base_port)
        try:
            await self._stop.wait()
        finally:
            if not self._failed:
                self.core.shutdown(time.monotonic(), time.time_ns() // 1000)
                self._turn()
            if self._timer is not None:
                self._timer.cancel()
            self._bulk.send([STOP])
            for channel in channels[:3]:
                channel.close(500)
            await asyncio.get_running_loop().run_in_executor(None, bulk.join, 5.0)
            self._bulk.close(0)
            self._context.term()
            if not self._waiting and not self._failed:
                self._store.close()
            self._lock.release()
        if self._failed:
            return EXIT_FAILED
        return EXIT_REFUSED if self.core.fatal else EXIT_DONE

    def stop(self) -> None:
        """End `run` in good order."""
        self._stop.set()

    def _fail(self) -> None:
        """End `run` at once: what is in memory may be wrong, what is on disk is right."""
        if not self._stop.is_set():
            log.critical("the broker has failed and ends; nothing that was acknowledged is lost, and a new one goes on from its database")
            self._failed = True
            self._stop.set()

    # ------------------------------------------------------------ what comes in

    def _from_workers(self, batch: list[list[Any]]) -> None:
        now, wall = time.monotonic(), time.time_ns() // 1000
        for origin, *frames in batch:
            peer = origin.bytes
            try:
                message, bodies = codec.decode(frames, codec.FROM_WORKER)
            except ProtocolError as error:
                self.core.on_bad_message(Port.WORKER, peer, error, now)
                continue
            address = str(origin.get("Peer-Address")) if isinstance(message, m.WorkerHello) else ""
            self.core.on_message(Port.WORKER, peer, message, bodies, now, wall, address=address)
        self._plan_turn()

    def _from_clients(self, batch: list[list[bytes]]) -> None:
        now, wall = time.monotonic(), time.time_ns() // 1000
        looked = False
        for peer, *frames in batch:
            try:
                message, bodies = codec.decode(frames, codec.FROM_CLIENT)
            except ProtocolError as error:
                self.core.on_bad_message(Port.CLIENT, peer, error, now)
                continue
            if not looked and isinstance(
                message, m.Submit
            ):  # one taken in that cannot be written waits for its answer as long as that is so
                self._look_at_disk()
                looked = True
            lookup = self.core.lookup(Port.CLIENT, message)
            try:
                found = self._store.find(lookup) if lookup is not None else Found()
            except StorageError as error:
                self._refuse(peer, message, error)
                continue
            if isinstance(message, m.Admin) and message.action == "status":
                message.args["store"] = self._disk_use()
            self.core.on_message(Port.CLIENT, peer, message, bodies, now, wall, found)
        self._plan_turn()

    def _refuse(self, peer: bytes, message: Any, error: StorageError) -> None:
        log.error("%s", error)
        verb = m.VERBS[type(message)]
        text, again = f"{error.message} {error.hint}".strip(), not isinstance(error, DamagedError)
        nack = m.Nack(code=error.code, verb=verb, request=message.request, retryable=again, retry_after=5.0 if again else 0.0, text=text)
        self._clients.send([peer, *codec.encode(nack)])

    def _from_watchers(self, batch: list[list[bytes]]) -> None:
        for frames in batch:
            if frames[0][:1] == b"\x01":
                self.core.on_subscribe(frames[0][1:])
        self._plan_turn()

    def _from_bulk(self, batch: list[list[bytes]]) -> None:
        now, wall = time.monotonic(), time.time_ns() // 1000
        for what, *rest in batch:
            if what == FAILED:
                self._fail()
                return
            digest, size = rest
            self.core.on_artifact_stored(digest, int.from_bytes(size, "big"), now, wall)
        self._plan_turn()

    # ------------------------------------------------------------ time

    def _plan_tick(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._planned = self.core.next_deadline()
        self._timer = loop.call_later(max(self._planned - time.monotonic(), 0.001), self._tick)

    def _tick(self) -> None:
        # The letter-boxes first: nobody is expired with a message waiting here (call_soon comes after the readers of this turn).
        for channel in (self._workers, self._clients):
            channel.rearm()
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._tick_now)

    def _tick_now(self) -> None:
        if self._stop.is_set():
            return
        now, wall = time.monotonic(), time.time_ns() // 1000
        self.core.on_tick(now, wall)
        self._watch_disk(now)
        prune = self.core.wants_prune(now, wall)
        if prune is not None and not self._trouble:
            with contextlib.suppress(StorageError):
                self.core.on_prunable(self._store.find(prune).prunable, now, wall)
        self._turn()
        self._plan_tick()

    def _watch_disk(self, now: float) -> None:
        if now >= self._next_disk_check:
            self._next_disk_check = now + DISK_CHECK_S
            self._look_at_disk()

    def _look_at_disk(self) -> None:
        if self._waiting:
            return  # a failed commit speaks for itself
        free = self._files.free()
        trouble = f"only {free / 1e6:.0f} MB are free on its disk" if free < RESERVE else ""
        self._storage(trouble)

    def _storage(self, trouble: str) -> None:
        if trouble and not self._trouble:
            log.error("new jobs are refused: %s", trouble)
        elif self._trouble and not trouble:
            log.info("the disk can be written again")
        self._trouble = trouble
        self.core.on_storage(not trouble, trouble)

    # ------------------------------------------------------------ what goes out

    def _plan_turn(self) -> None:
        """One turn for everything that comes in during this pass of the loop."""
        if not self._turn_planned:
            self._turn_planned = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_planned = False
        saves, sends = self.core.drain()
        if self._held or self._waiting:
            self._waiting.merge(saves)
            for send in sends:
                if getattr(send, "urgent", False):
                    self._emit(send)
                else:
                    self._held.append(send)
        else:
            self._waiting, self._held = saves, sends
            if not self._waiting or self._commit():
                self._release()
        if self.core.fatal and not self._stop.is_set():
            log.critical("%s", self.core.fatal)
            self.stop()
        if self.core.next_deadline() < self._planned - 0.01:
            self._plan_tick()

    def _commit(self) -> bool:
        try:
            self._store.commit(self._waiting)
        except StorageError as error:
            self._storage(str(error))
            if self._retry is None:
                self._retry = asyncio.get_running_loop().call_later(RETRY_COMMIT_S, self._commit_again)
            return False
        return True

    def _commit_again(self) -> None:
        self._retry = None
        if self._commit():
            self._storage("")
            self._release()

    def _release(self) -> None:
        """Everything so far is durable: say so."""
        self._waiting = Saves()
        sends, self._held = self._held, []
        self.core.committed()
        # Order matters within a socket only. Workers have something to do with what they get; clients just learn that all is well.
        for send in sends:
            if not isinstance(send, ToClient):
                self._emit(send)
        for send in sends:
            if isinstance(send, ToClient):
                self._emit(send)

    def _emit(self, send: Send) -> None:
        if isinstance(send, Publish):
            self._events.send([send.topic, *codec.encode(send.message, send.bodies)])
        elif isinstance(send, ToWorker):
            if not self._workers.send([send.peer, *codec.encode(send.message, send.bodies)]):
                self.core.on_unreachable(Port.WORKER, send.peer, time.monotonic(), time.time_ns() // 1000)
                self._plan_turn()
        elif isinstance(send, ToClient):
            self._clients.send([send.peer, *codec.encode(send.message, send.bodies)])
        elif isinstance(send, ArtifactStored):
            self._bulk.send([STORED, send.digest])
        elif isinstance(send, ArtifactDelete):
            self._bulk.send([DELETE, send.digest])

    def _disk_use(self) -> dict[str, Any]:
        return {**self._store.stats(), "disk_free_octets": self._files.free(), "data_dir": str(self._settings.data_dir)}
