"""One client's dialogue with the broker, as a pure machine: no socket, no clock, no randomness of its own.

Every verb is idempotent, so the whole art is to ask again: after a silence, after a reconnect, after the broker was restarted. The shell
feeds messages and ticks in and drains what is to be sent and what has been answered. The simulated World drives the same object:

    session.submit(...), session.request(...)      something is wanted
    session.on_message(message, bodies, now)       the broker said something
    session.on_tick(now)                           time passed; due at `next_deadline` at the latest
    for output in session.drain(): ...             `Send`, `Reconnect`, `Answer`, `Submitted`
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple

from ktrdr_zmq import messages as m

INTERVAL: Final = 2.0
SILENT_INTERVALS: Final = 3
BACKOFF_CAP: Final = 8.0
HELLO_PATIENCE: Final = 5.0
RESEND_FIRST: Final = 3.0
RESEND_CAP: Final = 12.0
MAX_BATCH: Final = 1000
MAX_SUBMITS: Final = 4
"""Batches of jobs that may be unanswered at a time: more wait here, so that a long queue is neither sent twice nor grows at the broker."""


class Send(NamedTuple):
    """Send to the broker's client port."""

    message: m.Message
    bodies: tuple[bytes, ...] = ()


class Reconnect(NamedTuple):
    """Close the socket and take a new one."""


class Answer(NamedTuple):
    """A request was answered, by its reply or by a NACK."""

    request: int
    reply: Any
    bodies: list[bytes]


class Submitted(NamedTuple):
    """The broker's word on one submitted job."""

    reply: m.SubmitReply


Output = Send | Reconnect | Answer | Submitted


class State(Enum):
    """PAUSED: waits before the next HELLO; GREETING: HELLO is out; OPEN: the broker has answered it; FAILED: it never will."""

    PAUSED = "paused"
    GREETING = "greeting"
    OPEN = "open"
    FAILED = "failed"


class _Pending:
    __slots__ = ("bodies", "message", "pause", "resend_at")

    def __init__(self, message: Any, bodies: tuple[bytes, ...]) -> None:
        self.message = message
        self.bodies = bodies
        self.pause = RESEND_FIRST
        self.resend_at = 0.0


class ClientSession:
    """A dialogue that survives whatever happens to the connection.

    Parameters
    ----------
    info : ClientInfo
    now : float
        Monotonic seconds.
    jitter : callable
        Gives numbers between 0 and 1; spreads reconnects.
    interval : float
        Seconds between signs of life while something is awaited.
    """

    def __init__(self, info: m.ClientInfo, now: float, jitter: Callable[[], float], interval: float = INTERVAL) -> None:
        self.state = State.GREETING
        self.epoch = 0
        self.store_id = b""
        self.broker_version = ""
        self.max_message = m.MAX_MESSAGE
        self.refusal: m.Nack | None = None
        self._info = info
        self._jitter = jitter
        self._interval = interval
        self._failures = 0
        self._next_request = 1
        self._hello_request = 0
        self._pending: dict[int, _Pending] = {}
        self._submits: deque[tuple[m.SubmitItem, bytes]] = deque()
        self._batches = 0
        self._resend_at = now
        self._outbox: list[Output] = []
        self._heard_at = now
        self._last_heard = now
        self._last_ping = now
        self._wake_at = now
        self._watched = False
        self._now = now
        self._hello(now)

    # ------------------------------------------------------------ requests

    def request(self, message: Any, bodies: tuple[bytes, ...] = (), *, now: float) -> int:
        """Ask the broker something; the number comes back in an `Answer`. ``message.request`` is filled in here."""
        self._now = now
        number = self._number()
        message.request = number
        pending = self._pending[number] = _Pending(message, bodies)
        self._transmit(pending, now)
        return number

    def forget(self, request: int) -> None:
        """Nobody waits for this answer any more."""
        self._settle(request)

    def submit(self, job_id: bytes, spec: bytes, body: bytes, *, now: float) -> None:
        """Submit a job; all that are submitted before the next `drain` travel together. `Submitted` follows for each."""
        self._now = now
        self._submits.append((m.SubmitItem(job_id, spec, len(body)), body))

    def watch(self, on: bool) -> None:
        """Whether events are awaited: keeps an otherwise idle dialogue alive."""
        self._watched = on

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._pending or self._submits)

    @property
    def last_heard(self) -> float:
        """When the broker was last heard of; a dialogue that is neither `busy` nor watched falls silent by itself."""
        return self._heard_at

    # ------------------------------------------------------------ inputs

    def on_message(self, message: Any, bodies: list[bytes], now: float) -> None:
        """Take in one message of the broker."""
        self._now = now
        self._heard_at = self._last_heard = now
        if isinstance(message, m.ClientHelloOk):
            self._welcome(message, now)
        elif isinstance(message, m.Nack):
            self._refused(message, bodies, now)
        elif self._settle(getattr(message, "request", 0)) is None:
            return  # answered before: it was asked twice
        elif isinstance(message, m.SubmitAck):
            self._outbox += map(Submitted, message.items)
        else:
            self._outbox.append(Answer(message.request, message, bodies))

    def on_tick(self, now: float) -> None:
        """Let time act."""
        self._now = now
        if self.state is State.PAUSED:
            if now >= self._wake_at:
                self._hello(now)
        elif self.state is State.GREETING:
            if now >= self._wake_at:
                self._lost(now)
        elif self.state is State.OPEN:
            self._keep(now)

    def on_writable(self, now: float) -> None:
        """The connection takes messages again after it had refused some: they are said once more."""
        self._now = now
        if self.state is State.GREETING:
            self._hello(now)
        elif self.state is State.OPEN:
            for pending in self._pending.values():
                self._transmit(pending, now)

    def next_deadline(self) -> float:
        """When `on_tick` is due at the latest."""
        if self.state in (State.PAUSED, State.GREETING):
            return self._wake_at
        if self.state is State.FAILED or not (self._pending or self._watched):
            return self._now + 3600.0
        ping_at = self._last_ping + self._interval
        return min(ping_at, self._resend_at) if self._pending else ping_at

    def drain(self) -> list[Output]:
        """Hand over what is to be sent and what has been answered."""
        while self._submits and self._batches < MAX_SUBMITS:
            self._pack()
        outbox, self._outbox = self._outbox, []
        return outbox

    # ------------------------------------------------------------ the dialogue

    def _number(self) -> int:
        self._next_request += 1
        return self._next_request - 1

    def _hello(self, now: float) -> None:
        self.state = State.GREETING
        self._wake_at = now + HELLO_PATIENCE
        self._hello_request = self._number()
        self._info.highest_epoch = max(self._info.highest_epoch, self.epoch)
        self._outbox.append(Send(m.ClientHello(self._hello_request, self._info)))

    def _welcome(self, ok: m.ClientHelloOk, now: float) -> None:
        if self.state is State.OPEN:
            return
        self.state = State.OPEN
        self.epoch, self.store_id, self.broker_version, self.max_message = ok.epoch, ok.store_id, ok.version, ok.max_message
        self._failures = 0
        self._last_ping = now
        for pending in self._pending.values():
            pending.pause = RESEND_FIRST
            self._transmit(pending, now)

    def _refused(self, nack: m.Nack, bodies: list[bytes], now: float) -> None:
        if nack.code == "HELLO_REQUIRED":
            if self.state is not State.GREETING:
                self._hello(now)
        elif nack.code == "VERSION" or (nack.request == self._hello_request and not nack.retryable):
            self.state = State.FAILED
            self.refusal = nack
        elif nack.request == self._hello_request:
            self._pause(now)
        else:
            pending = self._settle(nack.request)
            if pending is not None and isinstance(pending.message, m.Submit):
                for item in pending.message.items:  # refused as a whole: each of its jobs is
                    self._outbox.append(Submitted(m.SubmitReply(item.job_id, nack.code, nack.text, nack.retryable, nack.retry_after)))
            elif pending is not None:
                self._outbox.append(Answer(nack.request, nack, bodies))

    def _settle(self, request: int) -> _Pending | None:
        """A request has its answer."""
        pending = self._pending.pop(request, None)
        if pending is not None and isinstance(pending.message, m.Submit):
            self._batches -= 1
        return pending

    def _lost(self, now: float) -> None:
        """No answer: a new socket (after a failed handshake the old one may never connect), and HELLO after a pause."""
        self._outbox.append(Reconnect())
        self._pause(now)

    def _pause(self, now: float) -> None:
        self.state = State.PAUSED
        self._failures += 1
        self._wake_at = now + self._jitter() * min(self._interval * 2 ** (self._failures - 1), BACKOFF_CAP)

    def _keep(self, now: float) -> None:
        if not (self._pending or self._watched):
            self._last_heard = now  # nothing was expected, so silence means nothing
            return
        if now - self._last_heard > self._interval * SILENT_INTERVALS and now - self._last_ping < self._interval * SILENT_INTERVALS:
            self._last_heard = now
            self._lost(now)
            return
        if now - self._last_ping >= self._interval:
            if now - self._last_ping > self._interval * SILENT_INTERVALS:
                self._last_heard = now  # this process itself stood still, or had nothing to ask: no blame
            self._last_ping = now
            self._outbox.append(Send(m.ClientPing(0)))
        if now >= self._resend_at:
            for pending in self._pending.values():
                if now >= pending.resend_at:
                    pending.pause = min(pending.pause * 2, RESEND_CAP)
                    self._transmit(pending, now)
            self._resend_at = min((pending.resend_at for pending in self._pending.values()), default=now)

    def _transmit(self, pending: _Pending, now: float) -> None:
        pending.resend_at = now + pending.pause
        # A lower bound of all resend times, put right at the next tick: looking at each of many requests every time would cost more.
        self._resend_at = min(self._resend_at, pending.resend_at) if len(self._pending) > 1 else pending.resend_at
        if self.state is State.OPEN:
            self._outbox.append(Send(pending.message, pending.bodies))

    def _pack(self) -> None:
        """One SUBMIT of the jobs that wait, as many as fit a message."""
        limit = self.max_message // 2
        items: list[m.SubmitItem] = []
        bodies: list[bytes] = []
        size = 0
        while self._submits and len(items) < MAX_BATCH:
            item, body = self._submits[0]
            size += len(item.spec) + len(body) + 64
            if items and size > limit:
                break
            self._submits.popleft()
            items.append(item)
            bodies.append(body)
        self._batches += 1
        self.request(m.Submit(0, items), tuple(bodies), now=self._now)
