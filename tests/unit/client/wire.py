"""The client's session against the broker's real core, without sockets: every message is really encoded and decoded, time is a number."""

from __future__ import annotations

from typing import Any

import msgspec

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.core import Broker, Port
from ktrdr_broker.model import Found, Publish, ToClient, ToWorker
from ktrdr_broker.store import MemoryStore
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import JobSpec
from ktrdr_zmq.session import Answer, ClientSession, Output, Reconnect, Send, Submitted

WALL = 1_800_000_000_000_000
SPEC = msgspec.msgpack.encode(JobSpec(kind="echo", queue=True))


class Wire:
    """A client, a broker, and the line between them, which a test cuts, loses messages on, or plugs into a new broker."""

    def __init__(self, config: BrokerConfig = BrokerConfig()) -> None:
        self.config = config
        self.store = MemoryStore()
        self.now = 100.0
        self.generation = 0
        self.up = True
        self.session = ClientSession(m.ClientInfo(versions=[1]), self.now, lambda: 0.5)
        self.outputs: list[Output] = []
        self.sent: list[m.Message] = []
        self.events: list[m.Message] = []
        self.lose: set[type[m.Message]] = set()
        self.restart_broker()

    @property
    def peer(self) -> bytes:
        return b"client-%d" % self.generation

    def restart_broker(self) -> None:
        """Another process on the same store; the client comes back under another routing id."""
        self.broker = Broker(self.config, self.store.load(WALL + int(self.now * 1e6)), self.now, WALL)
        self.generation += 1

    def step(self) -> None:
        """Carry everything that is under way, both ways, until nothing is."""
        for _ in range(50):
            outputs = self.session.drain()
            if not outputs:
                return
            for output in outputs:
                self._carry_out(output)
        raise AssertionError("client and broker never fall silent")

    def _carry_out(self, output: Output) -> None:
        if isinstance(output, Send):
            self.sent.append(output.message)
            if self.up and type(output.message) not in self.lose:
                self._to_broker(codec.encode(output.message, output.bodies))
        elif isinstance(output, Reconnect):
            self.generation += 1
            self.outputs.append(output)
        else:
            self.outputs.append(output)

    def _to_broker(self, frames: list[bytes]) -> None:
        message, bodies = codec.decode(frames, codec.FROM_CLIENT)
        lookup = self.broker.lookup(Port.CLIENT, message)
        found = self.store.find(lookup) if lookup is not None else Found()
        self.broker.on_message(Port.CLIENT, self.peer, message, bodies, self.now, WALL, found)
        self.turn()

    def turn(self) -> None:
        """One turn of the broker's loop: commit, then send."""
        saves, sends = self.broker.drain()
        self.store.commit(saves)
        self.broker.committed()
        for send in sends:
            if isinstance(send, ToClient) and send.peer == self.peer and self.up:
                self.reply(codec.encode(send.message, send.bodies))
            elif isinstance(send, Publish):
                self.events.append(send.message)
            else:
                assert isinstance(send, ToWorker | ToClient)

    def reply(self, frames: list[bytes]) -> None:
        """Something reaches the client."""
        message, bodies = codec.decode(frames, codec.TO_CLIENT)
        if type(message) not in self.lose:
            self.session.on_message(message, bodies, self.now)

    def say(self, message: m.Message) -> None:
        """The broker says this, whatever its core thinks."""
        self.reply(codec.encode(message))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, ticking when the session wants it."""
        end = self.now + seconds
        while self.session.next_deadline() <= end:
            self.now = max(self.session.next_deadline(), self.now + 1e-6)
            self.session.on_tick(self.now)
            self.step()
        self.now = end
        self.session.on_tick(self.now)
        self.step()

    def submit(self, *job_ids: bytes, body: bytes = b"\x80") -> None:
        for job_id in job_ids:
            self.session.submit(job_id, SPEC, body, now=self.now)
        self.step()

    def ask(self, message: Any) -> int:
        number = self.session.request(message, now=self.now)
        self.step()
        return number

    # ------------------------------------------------------------ what came of it

    def replies(self) -> dict[bytes, list[str]]:
        """The codes of the broker's words on each submitted job."""
        found: dict[bytes, list[str]] = {}
        for output in self.outputs:
            if isinstance(output, Submitted):
                found.setdefault(output.reply.job_id, []).append(output.reply.code)
        return found

    def answers(self) -> dict[int, Any]:
        return {output.request: output.reply for output in self.outputs if isinstance(output, Answer)}

    def count(self, kind: type[m.Message]) -> int:
        """How many of these the client sent."""
        return sum(isinstance(message, kind) for message in self.sent)


def job_id(number: int) -> bytes:
    return number.to_bytes(10, "big") + b"lane-1"
