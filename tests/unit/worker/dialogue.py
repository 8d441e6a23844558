"""A worker's core under a table's control: the broker's side is spoken by hand, children and transfers do what the test says."""

from __future__ import annotations

from typing import Any

import msgspec

from ktrdr_worker import effects as e
from ktrdr_worker import pipe
from ktrdr_worker.core import WorkerConfig, WorkerCore
from ktrdr_worker.duties import Death
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import JobSpec

STORE = b"s" * 16


def job_id(token: int) -> bytes:
    return token.to_bytes(16, "big")


class Desk:
    """Drives one `WorkerCore`. Every message is encoded and decoded, as on the wire; invariants are checked after each turn."""

    def __init__(self, slots: str = "cpu=2", *, live: bool = True, recovered: Any = (), **config: Any) -> None:
        self.now = 100.0
        tags = tuple((tag, int(count)) for tag, count in (part.split("=") for part in slots.split(",")))
        info = m.WorkerInfo("w", b"i" * 16, 0, [1], list(tags), [("echo", 1, 1), ("noop", 1, 2)])
        self.core = WorkerCore(WorkerConfig(slots=tags, **config), info, lambda: 0.5, self.now, recovered)
        self.effects: list[e.Effect] = []
        self.sent: list[Any] = []
        self.bodies: list[tuple[bytes, ...]] = []
        self.session = 0
        if live:
            self.tick()
            self.welcome()

    # ------------------------------------------------------------ the world moves

    def turn(self) -> Desk:
        """Let the core speak; keep what it said apart from what it wants done."""
        for effect in self.core.drain(self.now):
            if isinstance(effect, e.Send):
                message, bodies = codec.decode(codec.encode(effect.message, effect.bodies), codec.FROM_WORKER)
                self.sent.append(message)
                self.bodies.append(tuple(bodies))
            else:
                self.effects.append(effect)
        assert self.core.check() == []
        self.core.next_deadline()  # as the shell does after each turn
        return self

    def tick(self, seconds: float = 0.0) -> Desk:
        """Let time pass, waking the core whenever it asks for it."""
        end = self.now + seconds
        for _ in range(10_000):
            due = self.core.next_deadline()
            if due > end:
                self.now = end
                return self
            self.now = max(due, self.now)
            self.core.on_tick(self.now)
            self.turn()
        raise AssertionError("the core wants to be woken for ever")

    def say(self, message: m.Message, bodies: tuple[bytes, ...] = ()) -> Desk:
        """The broker says something."""
        decoded, parts = codec.decode(codec.encode(message, bodies), codec.TO_WORKER)
        self.core.on_message(decoded, parts, self.now)
        return self.turn()

    def welcome(self, *verdicts: tuple[int, str], epoch: int = 7, store: bytes = STORE) -> Desk:
        """The broker answers HELLO."""
        self.session += 1
        given = [m.Verdict(job_id(token), token, verdict) for token, verdict in verdicts]
        return self.say(m.HelloOk(epoch, store, self.session, 2.0, 10.0, 1 << 20, 1 << 18, given, hello_seq=self.core.info.hello_seq))

    def dispatch(self, *tokens: int, tag: str = "cpu", session: int | None = None, **spec: Any) -> Desk:
        """The broker sends jobs; by default of kind echo."""
        raw = msgspec.msgpack.encode(JobSpec(**({"kind": "echo"} | spec)))
        items = [m.DispatchItem(job_id(token), token, 1, tag, raw, 1) for token in tokens]
        return self.say(m.Dispatch(self.session if session is None else session, items), tuple(b"x" for _ in tokens))

    def end(self, token: int, outcome: str = "done", run_s: float = 0.5, *, closing: bool = False, **fields: Any) -> Desk:
        """A child reports the end of a job."""
        body = b"r" if outcome == "done" else b""
        self.core.on_child(pipe.Ended(token, outcome, run_s, body, **fields), self.now, closing)
        return self.turn()

    def die(self, token: int, **death: Any) -> Desk:
        """The child that runs a job dies."""
        lane = self.core.duties.jobs[token].lane
        assert lane is not None
        self.core.on_gone(lane, Death("killed by signal 11 (SIGSEGV)", signal=11, **death), self.now)
        return self.turn()

    def ack(self, *tokens: int, verdict: str = "RECORDED") -> Desk:
        """The broker acknowledges results."""
        return self.say(m.ResultAck([m.Verdict(job_id(token), token, verdict) for token in tokens]))

    # ------------------------------------------------------------ what came of it

    def heard(self, kind: type[Any]) -> list[Any]:
        """Take the messages of one kind out of what was sent."""
        found = [message for message in self.sent if isinstance(message, kind)]
        self.sent = [message for message in self.sent if not isinstance(message, kind)]
        return found

    def wanted(self, kind: type[Any]) -> list[Any]:
        """Take the effects of one kind out of what is to be done."""
        found = [effect for effect in self.effects if isinstance(effect, kind)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, kind)]
        return found

    def started(self) -> list[int]:
        """Tokens given to children since the last look."""
        return [effect.job.token for effect in self.wanted(e.StartJob)]

    def results(self) -> list[tuple[int, str]]:
        """(token, outcome) of the results sent since the last look."""
        return [(item.token, item.outcome.value) for result in self.heard(m.Result) for item in result.items]

    def rejects(self) -> list[tuple[int, str]]:
        """(token, code) of the rejections sent since the last look."""
        return [(item.token, item.code) for reject in self.heard(m.Reject) for item in reject.items]

    def credit(self) -> dict[str, int]:
        """The highest totals granted so far; takes CREDIT out, reads RESULT only."""
        totals: dict[str, int] = {}
        for message in self.sent:
            for tag, total in getattr(message, "totals", getattr(message, "credit", [])):
                totals[tag] = max(totals.get(tag, 0), total)
        return totals
