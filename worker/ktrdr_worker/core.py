"""The worker's core: what it says to the broker, when, and what it does with each answer. Pure.

No sockets, processes, clocks, randomness or logging here: time comes in as ``now`` (seconds on a clock that never goes back), randomness as
a callable, and everything that is to be done leaves as a list of `ktrdr_worker.effects`. The shell (or the simulated World)

1. calls ``on_message``, ``on_child``, ``on_gone``, ``on_fetched``, ``on_uploaded``, ``begin_drain``, ``set_info`` as things happen,
2. calls ``on_tick(now)`` when ``next_deadline()`` has come, after it has read its inbox,
3. calls ``drain(now)`` after each turn, and carries the effects out in order.

The dialogue is Paranoid Pirate: heartbeats both ways, a new socket and HELLO after silence. Running jobs go on meanwhile; HELLO names them
and the finished ones, and the broker's verdicts say what becomes of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, NamedTuple

from ktrdr_worker import pipe
from ktrdr_worker.duties import Death, Duties, Timing
from ktrdr_worker.effects import Discard, Effect, Exit, Note, Reconnect, Remember, Send, SendLog
from ktrdr_worker.lanes import Lane, Lanes, Stop
from ktrdr_worker.outbox import Outbox, Totals
from ktrdr_zmq import messages as m

EXIT_REFUSED: Final = 3
TOLD_AFTER: Final = frozenset({0, 6})
"""Unanswered greetings after which the log says so: at the start, and when a broker stays away."""
_FINAL_CODES: Final = frozenset({"SUPERSEDED", "DUPLICATE_WORKER_ID", "UNAUTHORIZED"})


class WorkerConfig(NamedTuple):
    """The core's settings; durations in seconds. Tests set them down to milliseconds."""

    slots: tuple[tuple[str, int], ...] = (("cpu", 1),)
    hello_timeout: float = 5.0
    hello_timeout_intervals: float = 2.5
    backoff_base: float = 0.25
    backoff_cap: float = 8.0
    backoff_cap_intervals: float = 4.0
    silent_intervals: float = 3.0
    long_after: float = 10.0
    progress_every: float = 0.25
    resend_after: float = 6.0
    drain_grace: float = 10.0
    leave_patience: float = 10.0
    feed_depth: int = 64
    feed_s: float = 0.1
    timing: Timing = Timing()


class Link(Enum):
    """Where the dialogue stands."""

    DOWN = "down"
    GREETING = "greeting"
    LIVE = "live"


class WorkerCore:
    """One worker's side of the dialogue, and the jobs in its hands.

    Parameters
    ----------
    config : WorkerConfig
    info : WorkerInfo
        What HELLO says; the core fills in ``hello_seq``, ``highest_epoch``, ``store_id`` and ``draining``.
    jitter : callable
        Gives numbers evenly from [0, 1), for the back-off.
    now : float
    recovered : iterable of (ResultItem, bytes)
        Results that an earlier process left on disk unacknowledged.
    """

    def __init__(
        self,
        config: WorkerConfig,
        info: m.WorkerInfo,
        jitter: Callable[[], float],
        now: float,
        recovered: Iterable[tuple[m.ResultItem, bytes]] = (),
    ) -> None:
        self.config = config
        self.info = info
        self.lanes = Lanes(config.slots, config.feed_depth, config.feed_s)
        self.outbox = Outbox(config.progress_every, config.resend_after)
        self.duties = Duties(self.lanes, self.outbox, {kind: (low, high) for kind, low, high in info.kinds}, config.timing)
        self.link = Link.DOWN
        self.session = 0
        self.health: tuple[float, float, str] = (0.0, 0.0, "")
        self._effects: list[Effect] = []
        self._jitter = jitter
        self._ping_interval = 2.0
        self._max_octets = m.MAX_MESSAGE // 2
        self._tries = 0
        self._greet_at = now
        self._greeted_at = now
        self._heard = now
        self._ping_at = now
        self._ping_seq = 0
        self._due = now
        self._dispatched: dict[str, int] = {}
        self._granted: dict[str, int] = {}
        self._drain: m.Drain | None = None
        self._leaving = False
        self._drained_at = math.inf
        self._over = False
        for item, body in recovered:
            self.outbox.finish(item, body)
            self.duties.last_token = max(self.duties.last_token, item.token)

    # ------------------------------------------------------------ what the broker says

    def on_message(self, message: Any, bodies: list[bytes], now: float) -> None:  # noqa: C901  # a table of verbs
        """Take in one message of the broker."""
        self._heard = now
        if isinstance(message, m.Dispatch):
            if self.link is Link.LIVE and message.session == self.session:
                for item, body in zip(message.items, bodies, strict=True):
                    if self.duties.dispatch(item, body, now):
                        self._dispatched[item.tag] = self._dispatched.get(item.tag, 0) + 1
        elif isinstance(message, m.ResultAck):
            for verdict in message.items:
                self._settle(verdict)
        elif isinstance(message, m.HelloOk):
            self._hello_ok(message, now)
        elif isinstance(message, m.Cancel):
            for wanted in message.items:
                self._cancel(wanted, now)
        elif isinstance(message, m.CheckpointAck):
            self.duties.checkpoints.acknowledged(message.token, message.seq)
        elif isinstance(message, m.Drain):
            self._on_drain(message, now)
        elif isinstance(message, m.Tail):
            self._effects.append(SendLog(message.request, message.client, message.job_id, message.token, message.offset, message.limit))
        elif isinstance(message, m.Bye):
            self._refused(message.code, message.text, now)
        elif isinstance(message, m.Nack):
            self._nack(message, now)

    def _cancel(self, item: m.CancelItem, now: float) -> None:
        if item.token in self.duties.jobs:
            self.duties.stop(item.token, Stop.CANCEL, item.grace, now)
        elif item.token not in self.outbox.finished:
            self.duties.cancel_unknown(item)
            if self.link is Link.LIVE:
                self._hello(now)  # if its DISPATCH was lost, the two sides have counted differently what was sent: begin anew

    def _hello_ok(self, ok: m.HelloOk, now: float) -> None:
        if self.link is not Link.GREETING or ok.hello_seq != self.info.hello_seq:
            return  # the answer to an earlier HELLO on this socket; the one to the latest will come
        if self.info.store_id not in (b"", ok.store_id):
            self._effects.append(Note("warning", "The broker at this address is another one than before: it has another store."))
            self.duties.last_token = 0  # that one has a count of its own
        if (ok.store_id, ok.epoch) != (self.info.store_id, self.info.highest_epoch):
            self._effects.append(Remember(ok.store_id, ok.epoch))
        self.info.store_id, self.info.highest_epoch = ok.store_id, ok.epoch
        self.link, self.session, self._tries = Link.LIVE, ok.session, 0
        self._ping_interval = ok.ping_interval
        self._max_octets = ok.max_message // 2
        self._ping_at = now + ok.ping_interval
        self._granted, self._dispatched = {}, dict.fromkeys(self.lanes.lanes, 0)
        if not self._leaving:
            self._end_drain()
        self.outbox.renew()
        self.duties.checkpoints.renew()
        for verdict in ok.verdicts:
            self._verdict(verdict, now)
        self._effects.append(Note("info", f"Connected to the broker (epoch {ok.epoch}, version {ok.version or 'unknown'})."))

    def _verdict(self, verdict: m.Verdict, now: float) -> None:
        if verdict.verdict in ("ABORT", "FORGET"):
            if self.outbox.settle(verdict.token) is not None:
                self._effects.append(Discard(verdict.token))
            elif verdict.token in self.duties.jobs:
                self._effects.append(Note("warning", f"Job {verdict.job_id.hex()[:8]} belongs to another worker by now; it is stopped."))
                self.duties.stop(verdict.token, Stop.ABORT, 0.0, now)

    def _settle(self, verdict: m.Verdict) -> None:
        if verdict.verdict == "MISSING_ARTIFACT":
            self.duties.resume_upload(verdict.token)
            return
        if self.outbox.settle(verdict.token) is not None:
            self._effects.append(Discard(verdict.token))

    def _nack(self, nack: m.Nack, now: float) -> None:
        if nack.code in ("HELLO_REQUIRED", "STALE_SESSION"):
            if self.link is Link.LIVE:
                self._hello(now)
        elif nack.code in _FINAL_CODES:
            self._refused(nack.code, nack.text, now)
        else:
            self._effects.append(Note("warning", f"The broker refused something: {nack.code}: {nack.text}"))
            if self.link is Link.GREETING:
                self._lose(now, least=nack.retry_after)

    def _refused(self, code: str, text: str, now: float) -> None:
        if code in _FINAL_CODES:
            self._exit(EXIT_REFUSED, text or code)
        else:
            self._effects.append(Note("info", text or f"The broker ended the session: {code}."))
            self._tries = 0
            self._lose(now)

    # ------------------------------------------------------------ what happens here

    def on_child(self, frame: pipe.FromChild, now: float, closing: bool = False) -> None:
        """A child process has said something; ``closing``: it will be replaced, its slot is free only after `on_gone`."""
        self.duties.on_child(frame, now, closing)

    def on_gone(self, lane: Lane, death: Death, now: float) -> None:
        """A lane's child and everything it started are gone."""
        self.duties.on_gone(lane, death, now)

    def on_fetched(self, token: int, error: str, now: float) -> None:
        """A `Fetch` is done; ``error`` is empty if everything is here."""
        self.duties.on_fetched(token, error, now)

    def on_uploaded(self, token: int, seq: int, error: str = "") -> None:
        """An `Upload` is done; ``error`` is empty if everything is stored, else it never will be."""
        self.duties.on_uploaded(token, seq, error)

    def set_info(self, info: m.WorkerInfo, now: float) -> None:
        """The worker offers something else than before: say so."""
        info.hello_seq, info.highest_epoch, info.store_id = self.info.hello_seq, self.info.highest_epoch, self.info.store_id
        info.draining = self.info.draining
        self.info = info
        self.duties.kinds = {kind: (low, high) for kind, low, high in info.kinds}
        if self.link is not Link.DOWN:
            self._hello(now)

    def begin_drain(self, now: float, *, stop: bool = True) -> None:
        """Take no more jobs, hand back what runs (``stop``) or let it end, then leave."""
        self._leaving = self.info.draining = True
        self._on_drain(m.Drain(on=True, stop=stop, leave=True), now)
        if self.link is not Link.DOWN:
            self._hello(now)

    def _on_drain(self, drain: m.Drain, now: float) -> None:
        if not drain.on:
            if not self._leaving:
                self._end_drain()
            return
        self._drain = drain
        self._leaving = self._leaving or drain.leave
        self.duties.stop_waiting("DRAINING", now)
        if drain.stop:
            for token in list(self.duties.jobs):
                self.duties.stop(token, Stop.DRAIN, self.config.drain_grace, now)

    def _end_drain(self) -> None:
        self._drain, self._drained_at = None, math.inf
        self.duties.refusal = ""

    # ------------------------------------------------------------ the dialogue

    def _hello(self, now: float) -> None:
        """Greet on the socket there is."""
        self.link, self.session = Link.GREETING, 0
        self.duties.forget_queued()
        self.outbox.greet()
        self.info.hello_seq += 1
        self.info.highest_token = self.duties.last_token
        self._greeted_at = now
        finished = [m.JobRef(entry.item.job_id, entry.item.token) for entry in self.outbox.finished.values()]
        self._effects.append(Send(m.WorkerHello(self.info, self.duties.running(), finished)))

    def _lose(self, now: float, least: float = 0.0) -> None:
        """Give the session up: a new socket and HELLO after a while, with full jitter so that a crowd spreads."""
        config = self.config
        self.link, self.session = Link.DOWN, 0
        self.duties.forget_queued()
        cap = min(config.backoff_cap, config.backoff_cap_intervals * self._ping_interval)
        pause = self._jitter() * min(cap, config.backoff_base * 2**self._tries)
        self._tries = min(self._tries + 1, 16)
        self._greet_at = now + max(pause, least)

    def on_tick(self, now: float) -> None:
        """Let time act."""
        stall = now - self._due - self._ping_interval
        if stall > 0:  # this process stood still: nobody else is blamed for the silence
            self._heard += stall
            self._greeted_at += stall
        if self.link is Link.DOWN and now >= self._greet_at:
            self._effects.append(Reconnect())
            self._hello(now)
        elif self.link is Link.GREETING and now >= self._greeted_at + self._hello_patience():
            if self._tries in TOLD_AFTER:
                self._effects.append(Note("warning", "The broker does not answer; trying on."))
            self._lose(now)
        elif self.link is Link.LIVE:
            if now >= self._heard + self._ping_interval * self.config.silent_intervals:
                self._effects.append(Note("warning", f"The broker has been silent for {now - self._heard:.0f} s; connecting anew."))
                self._lose(now)
            elif now >= self._ping_at:
                self._ping(now)
        self.duties.tick(now)

    def _hello_patience(self) -> float:
        """How long a HELLO may go unanswered: shorter where the broker asked for quicker heartbeats, so that all intervals shrink alike."""
        config = self.config
        return min(config.hello_timeout, max(config.hello_timeout_intervals * self._ping_interval, 1.0))

    def _ping(self, now: float) -> None:
        self._ping_seq += 1
        self._ping_at = now + self._ping_interval
        after = self.config.long_after
        tokens = [
            job.token for job in self.duties.jobs.values() if job.accepted and now - job.accepted > after and job.stop is not Stop.ABORT
        ]
        credit, draining = list(self._granted.items()), self._drain is not None
        self._effects.append(Send(m.WorkerPing(self.session, self._ping_seq, tokens, *self.health, credit, draining)))

    def next_deadline(self) -> float:
        """When `on_tick` is due at the latest."""
        if self.link is Link.DOWN:
            due = self._greet_at
        elif self.link is Link.GREETING:
            due = self._greeted_at + self._hello_patience()
        else:
            due = min(self._ping_at, self._heard + self._ping_interval * self.config.silent_intervals, self.outbox.next_deadline())
        due = min(due, self.duties.next_deadline())
        if self._leaving and not self._over:
            due = min(due, self._leave_by())
        self._due = due
        return due

    # ------------------------------------------------------------ outputs

    def drain(self, now: float) -> list[Effect]:
        """Hand over what is to be done, in order. Called after each turn."""
        duties = self.duties
        duties.place(now)
        if self.link is Link.LIVE:
            self._effects += duties.report_checkpoints(self.session)
            self._effects += self.outbox.flush(self.session, now, self._credit(), self._max_octets)
        if self._drain is not None and not duties.jobs and not self._over:
            self._drained(now)
        effects, duties.effects = duties.effects, []
        sends, self._effects = self._effects, []
        return effects + sends

    @property
    def leaving(self) -> bool:
        """Whether it ends as soon as nothing is left to do."""
        return self._leaving

    def _credit(self) -> Totals | None:
        """Cumulative grants that the broker does not know of yet."""
        if self._drain is not None:
            return None
        totals = []
        for tag, lanes in self.lanes.lanes.items():
            total = len(lanes) + self._dispatched[tag] - self.lanes.outstanding(tag)
            if total > self._granted.get(tag, 0):
                self._granted[tag] = total
                totals.append((tag, total))
        return totals or None

    def _drained(self, now: float) -> None:
        """Nothing runs any more."""
        if self._drained_at == math.inf:
            self._drained_at = now
            if self.link is Link.LIVE:
                self._effects.append(Send(m.Drained(self.session)))
        if not self._leaving:
            return
        if not self.outbox.finished and self.link is Link.LIVE:
            self._effects.append(Send(m.WorkerBye(self.session)))
            self._exit(0)
        elif now >= self._leave_by():
            # No good-bye: the broker would take it for the end of jobs whose results wait on disk for the next start.
            unsent = "results on disk are sent after the next start" if self.outbox.finished else "nothing was left to say"
            self._exit(0, f"Left without the broker's answer; {unsent}.")

    def _leave_by(self) -> float:
        """When to go, acknowledged or not."""
        return self._drained_at + (self.config.leave_patience if self.outbox.finished else min(self.config.leave_patience, 1.0))

    def _exit(self, code: int, text: str = "") -> None:
        self._over = True
        self._effects.append(Exit(code, text))

    # ------------------------------------------------------------ for tests and the World

    def check(self) -> list[str]:
        """Invariants that must hold after every step; a list of what does not."""
        wrong = [
            f"{lane!r}: token {job.token:x} is not where the book has it"
            for lane in self.lanes
            for job in lane.jobs
            if job.lane is not lane or self.duties.jobs.get(job.token) is not job
        ]
        wrong += [f"token {token:x} is both running and finished" for token in self.outbox.finished if token in self.duties.jobs]
        for tag, queue in self.lanes.queues.items():
            if any(job.lane is not None or job.token not in self.duties.jobs for job in queue):
                wrong.append(f"{tag}: a waiting job has a lane, or is not in the book")
            if queue and any(lane.idle for lane in self.lanes.lanes[tag]):
                wrong.append(f"{tag}: a job waits beside an idle slot")
        return wrong
