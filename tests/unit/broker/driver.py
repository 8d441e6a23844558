"""A broker's core with a store, a clock that stands still until it is told to go, and peers that speak through the real codec.

`House` keeps the shell's law: inputs, one commit, then the sends in their order. After each turn the core's own invariants must hold.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.core import Broker, Port
from ktrdr_broker.model import ArtifactDelete, ArtifactStored, Found, Publish, Saves, Send, ToClient, ToWorker
from ktrdr_broker.store import MemoryStore, StorageError
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Artifact, Attempt, Failure, JobSpec, Outcome

WALL = 1_800_000_000_000_000
CRASH = Failure("Crashed", "The job's process died of SIGSEGV.", signal=11, stderr_tail="Segmentation fault")


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def artifact(name: str, data: bytes) -> Artifact:
    return Artifact(name, digest_of(data), len(data))


class House:
    """One broker and everybody who talks to it.

    ``received`` has what each connection got, ``events`` what was published, ``bulk`` what the bulk thread was told.
    """

    def __init__(self, store: MemoryStore | None = None, **config: Any) -> None:
        self.store = store if store is not None else MemoryStore()
        self.config = BrokerConfig(**config)
        self.now = 1000.0
        self.received: dict[bytes, list[tuple[Any, list[bytes]]]] = {}
        self.events: list[tuple[bytes, Any, list[bytes]]] = []
        self.bulk: list[ArtifactStored | ArtifactDelete] = []
        self.unreachable: set[bytes] = set()
        self._peers = 0
        self._again = False
        self.start()

    @property
    def wall(self) -> int:
        return WALL + int(self.now * 1e6)

    def start(self) -> None:
        self.broker = Broker(self.config, self.store.load(self.wall), self.now, self.wall, "1.2.3")
        self._waiting, self._held = Saves(), list[Send]()

    def restart(self, down_for: float = 1.0) -> None:
        """Kill the broker and start another one on the same store; every connection is new to it."""
        self.now += down_for
        self.start()

    def peer(self) -> bytes:
        self._peers += 1
        return f"peer-{self._peers}".encode()

    # ------------------------------------------------------------ turns

    def send(self, port: Port, peer: bytes, message: m.Message, bodies: list[bytes] | None = None, *, address: str = "") -> None:
        """Put a message in; nothing comes out before `turn`."""
        table = codec.FROM_WORKER if port is Port.WORKER else codec.FROM_CLIENT
        decoded, cut = codec.decode(codec.encode(message, bodies or []), table)
        lookup = self.broker.lookup(port, decoded)
        found = self.store.find(lookup) if lookup is not None else Found()
        self.broker.on_message(port, peer, decoded, cut, self.now, self.wall, found, address)

    def turn(self) -> None:
        """One commit, then the sends. While commits fail, only urgent sends leave."""
        saves, sends = self.broker.drain()
        self._waiting.merge(saves)
        self._held += [send for send in sends if not getattr(send, "urgent", False)]
        for send in sends:
            if getattr(send, "urgent", False):
                self._deliver(send)
        try:
            if self._waiting:
                self.store.commit(self._waiting)
        except StorageError as error:
            self.broker.on_storage(False, str(error))
        else:
            self.broker.on_storage(True)
            self._waiting = Saves()
            self.broker.committed()
            held, self._held = self._held, []
            for send in held:
                self._deliver(send)
        assert self.broker.check() == []
        if self._again:
            self._again = False
            self.turn()

    def _deliver(self, send: Send) -> None:
        if isinstance(send, Publish):
            message, bodies = codec.decode(codec.encode(send.message, send.bodies), codec.EVENTS)
            self.events.append((send.topic, message, bodies))
        elif isinstance(send, (ToWorker, ToClient)):
            port, table = (Port.WORKER, codec.TO_WORKER) if isinstance(send, ToWorker) else (Port.CLIENT, codec.TO_CLIENT)
            if send.peer in self.unreachable:
                self.broker.on_unreachable(port, send.peer, self.now, self.wall)
                self._again = True
                return
            self.received.setdefault(send.peer, []).append(codec.decode(codec.encode(send.message, send.bodies), table))
        else:
            self.bulk.append(send)

    def tick(self, seconds: float = 0.0, *alive: Worker, step: float = 1.0) -> None:
        """Let time pass; the workers named here send their heartbeats meanwhile."""
        end = self.now + seconds
        while True:
            self.now = min(self.now + step, end)
            for worker in alive:
                worker.ping()
            self.broker.on_tick(self.now, self.wall)
            self.turn()
            if self.now >= end:
                return

    # ------------------------------------------------------------ shorthands

    def worker(self, worker_id: str = "cpu-1", *, kinds: str = "training echo", grant: bool = True, **about: Any) -> Worker:
        """A worker that has said HELLO and granted its slots."""
        worker = Worker(self, worker_id, kinds=kinds, **about)
        worker.hello()
        if grant:
            worker.grant()
        return worker

    def client(self) -> Client:
        client = Client(self)
        client.ask(m.ClientHello(1, m.ClientInfo([m.MAJOR], submitter="ada@lab")))
        return client

    def store_artifact(self, data: bytes) -> bytes:
        digest = digest_of(data)
        self.broker.on_artifact_stored(digest, len(data), self.now, self.wall)
        self.turn()
        return digest

    def job_events(self, job_id: bytes) -> list[tuple[str, str]]:
        """State and reason of everything that was published of a job."""
        return [(str(e.state), e.reason) for _, e, _ in self.events if isinstance(e, m.JobEvent) and e.job_id == job_id]

    def attempts(self, job_id: bytes) -> list[Attempt]:
        return self.store.jobs[job_id].attempts


class Worker:
    """A worker without processes: it says what the test tells it to say."""

    def __init__(
        self, house: House, worker_id: str, *, kinds: str = "echo", slots: dict[str, int] | None = None, instance: bytes = b"first",
        host: str = "host-1", address: str = "10.0.0.1", **info: Any,
    ) -> None:  # fmt: skip
        self.house = house
        self.peer = house.peer()
        self.address = address
        self.info = m.WorkerInfo(
            worker_id=worker_id, instance=instance, hello_seq=0, versions=[m.MAJOR], slots=list((slots or {"cpu": 1}).items()),
            kinds=[(kind, 1, 1) for kind in kinds.split()], host=host, **info,
        )  # fmt: skip
        self.session = 0
        self.totals: dict[str, int] = {}
        self.pings = 0

    # ------------------------------------------------------------ what it heard

    @property
    def heard(self) -> list[Any]:
        return [message for message, _ in self.house.received.get(self.peer, [])]

    def last(self, kind: type[Any]) -> Any:
        return [message for message in self.heard if type(message) is kind][-1]

    def count(self, kind: type[Any]) -> int:
        return sum(type(message) is kind for message in self.heard)

    @property
    def items(self) -> dict[bytes, m.DispatchItem]:
        """The latest dispatch of each job that came over this connection."""
        return {item.job_id: item for message in self.heard if isinstance(message, m.Dispatch) for item in message.items}

    @property
    def jobs(self) -> list[bytes]:
        """Every dispatch, in the order of arrival."""
        return [item.job_id for message in self.heard if isinstance(message, m.Dispatch) for item in message.items]

    def verdicts(self) -> dict[bytes, str]:
        return {verdict.job_id: verdict.verdict for verdict in self.last(m.HelloOk).verdicts}

    def acks(self) -> list[str]:
        return [verdict.verdict for message in self.heard if isinstance(message, m.ResultAck) for verdict in message.items]

    # ------------------------------------------------------------ what it says

    def say(self, message: m.Message, bodies: list[bytes] | None = None) -> None:
        self.house.send(Port.WORKER, self.peer, message, bodies, address=self.address)
        self.house.turn()

    def hello(self, running: list[m.JobRef] | None = None, finished: list[m.JobRef] | None = None) -> Any:
        """Say HELLO; returns the first answer."""
        before = len(self.heard)
        self.info.hello_seq += 1
        self.say(m.WorkerHello(self.info, running or [], finished or []))
        answers = [message for message in self.heard[before:] if isinstance(message, (m.HelloOk, m.Bye, m.Nack))]
        if answers and isinstance(answers[0], m.HelloOk):
            self.session, self.totals = answers[0].session, {}
        return answers[0] if answers else None

    def reconnect(self, running: list[m.JobRef] | None = None, finished: list[m.JobRef] | None = None) -> Any:
        """The same process over a new connection."""
        self.peer = self.house.peer()
        return self.hello(running, finished)

    def reborn(self, instance: bytes = b"second", **kwargs: Any) -> Any:
        """Another process of the same worker."""
        self.info.instance, self.info.hello_seq = instance, 0
        return self.reconnect(**kwargs)

    def grant(self, **more: int) -> None:
        """Grant so many slots more; without arguments, all of them."""
        for tag, number in (more or dict(self.info.slots)).items():
            self.totals[tag] = self.totals.get(tag, 0) + number
        self.say(m.Credit(self.session, list(self.totals.items())))

    def ref(self, job_id: bytes) -> m.JobRef:
        return m.JobRef(job_id, self.items[job_id].token)

    def accept(self, *job_ids: bytes) -> None:
        self.say(m.Accept(self.session, [self.ref(job_id) for job_id in job_ids]))

    def reject(self, job_id: bytes, code: str = "UNFIT") -> None:
        self.totals["cpu"] = self.totals.get("cpu", 0) + 1
        item = m.RejectItem(job_id, self.items[job_id].token, code)
        self.say(m.Reject(self.session, [item]))
        self.say(m.Credit(self.session, list(self.totals.items())))

    def finish(
        self, job_id: bytes, outcome: Outcome = Outcome.DONE, body: bytes = b"", *, token: int = 0, credit: bool = True, **about: Any
    ) -> None:
        """Report how a job ended, and that its slot is free again."""
        item = self.items.get(job_id)
        if credit and item is not None:
            self.totals[item.tag] = self.totals.get(item.tag, 0) + 1
        token = token or (item.token if item is not None else 0)
        result = m.ResultItem(job_id, token, outcome, len(body), about.pop("run_s", 5.0), **about)
        self.say(m.Result(self.session, [result], list(self.totals.items())), [body])

    def progress(self, job_id: bytes, seq: int, fraction: float, stage: str = "") -> None:
        self.say(m.Progress(self.session, [m.ProgressItem(job_id, self.items[job_id].token, seq, fraction, stage)]))

    def checkpoint(self, job_id: bytes, seq: int, data: bytes, *, token: int = 0) -> None:
        token = token or self.items[job_id].token
        self.say(m.Checkpoint(self.session, job_id, token, seq, artifact("checkpoint", data)))

    def ping(self, *tokens: int) -> None:
        self.pings += 1
        self.say(m.WorkerPing(self.session, self.pings, list(tokens)))

    def bye(self, returns_in: float = -1.0) -> None:
        self.say(m.WorkerBye(self.session, returns_in))


class Client:
    """A client that waits for nothing: what it asks is answered in the same turn."""

    numbers = 0

    def __init__(self, house: House) -> None:
        self.house = house
        self.peer = house.peer()
        self._request = 1

    @property
    def heard(self) -> list[Any]:
        return [message for message, _ in self.house.received.get(self.peer, [])]

    def ask(self, message: Any, bodies: list[bytes] | None = None) -> Any:
        """The answer, or None if there is none (yet)."""
        before = len(self.heard)
        self.house.send(Port.CLIENT, self.peer, message, bodies)
        self.house.turn()
        return self.heard[-1] if len(self.heard) > before else None

    def number(self) -> int:
        self._request += 1
        return self._request

    def offer(self, kind: str = "echo", body: bytes = b"", *, job_id: bytes = b"", **spec: Any) -> m.SubmitReply:
        """Submit one job; returns the broker's word on it."""
        Client.numbers += 1
        job_id = job_id or Client.numbers.to_bytes(16, "big")
        raw = msgspec.msgpack.encode(JobSpec(kind, **spec))
        ack = self.ask(m.Submit(self.number(), [m.SubmitItem(job_id, raw, len(body))]), [body])
        reply: m.SubmitReply = ack.items[0]
        return reply

    def submit(self, kind: str = "echo", body: bytes = b"", **spec: Any) -> bytes:
        """Submit one job that must be accepted; returns its id."""
        reply = self.offer(kind, body, **spec)
        assert (reply.code, reply.text) == ("OK", "")
        return reply.job_id

    def view(self, job_id: bytes) -> m.JobView:
        reply = self.ask(m.Status(self.number(), [job_id.hex()], details=True))
        assert reply.errors == []
        view: m.JobView = reply.jobs[0]
        return view

    def state(self, job_id: bytes) -> str:
        return self.view(job_id).state.value

    def cancel(self, job_id: bytes, grace: float = 10.0) -> str:
        reply = self.ask(m.CancelJobs(self.number(), [job_id.hex()], grace))
        state: str = reply.jobs[0].state.value
        return state

    def explain(self, job_id: bytes) -> tuple[str, dict[str, str]]:
        reply = self.ask(m.Explain(self.number(), job_id.hex()))
        return reply.text, dict(reply.workers)

    def result(self, job_id: bytes) -> tuple[m.ResultReply, bytes]:
        reply = self.ask(m.ResultGet(self.number(), job_id.hex()))
        bodies = self.house.received[self.peer][-1][1]
        return reply, bodies[0] if bodies else b""

    def admin(self, action: str, **args: Any) -> Any:
        """The document, or the NACK."""
        reply = self.ask(m.Admin(self.number(), action, args))
        return reply.document if isinstance(reply, m.AdminReply) else reply
