"""Public doubles for tests: a seeded World in which broker, workers and clients live in simulated time.

The World owns the clock, the network and the plug of every machine. Messages are really encoded and decoded by the machines; here they
are frames. It knows nothing of brokers or jobs: a `Machine` wraps a pure core, and says after each step whether its invariants hold. All
randomness comes from the seed, so a failing seed replays exactly. It imports neither broker nor worker, and touches no socket or disk.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

Frames = Sequence[bytes]
WALL_START: Final = 1_800_000_000_000_000
TIMER_LATE: Final = 1e-4
"""A timer fires a little after its time, never on the dot: a deadline that rounding puts a hair ahead is reached all the same."""


class Violation(AssertionError):
    """An invariant does not hold; the message says which, when, and how to see it again."""


class Crash(Exception):
    """Raised by a machine whose process dies in the middle of `Machine.effects`, for example between commit and send.

    Parameters
    ----------
    text : str
        Shown in the trace.
    sent : sequence of Effect
        What had left the process before.
    """

    def __init__(self, text: str, sent: Sequence[Effect] = ()) -> None:
        super().__init__(text)
        self.sent = sent


class ToServer(NamedTuple):
    """A dealer sends to the server's port."""

    port: str
    frames: Frames


class ToPeer(NamedTuple):
    """The server sends to one of its peers."""

    port: str
    peer: bytes
    frames: Frames


class Publication(NamedTuple):
    """The server publishes to whoever has subscribed to a beginning of the topic."""

    topic: bytes
    frames: Frames


class Subscribe(NamedTuple):
    """A machine wants publications whose topic begins so."""

    topic: bytes


class Unsubscribe(NamedTuple):
    """A machine wants them no more."""

    topic: bytes


class Reconnect(NamedTuple):
    """A dealer throws its socket for this port away and takes a new one."""

    port: str


class Timer(NamedTuple):
    """Call `Machine.timer` with this payload after so many simulated seconds, unless the machine has died by then."""

    delay: float
    payload: Any


Effect = ToServer | ToPeer | Publication | Subscribe | Unsubscribe | Reconnect | Timer


class Machine(Protocol):
    """One process. Its object outlives the process: what it keeps between `stop` and `start` is its disk."""

    name: str

    def start(self, now: float, wall: int) -> None:
        """Begin a process with nothing in memory but what the disk has."""

    def stop(self) -> None:
        """The process is killed: memory is gone."""

    def receive(self, port: str, peer: bytes, frames: Frames, now: float, wall: int) -> None:
        """Take in one message; ``peer`` is the sender's connection on a server and empty elsewhere."""

    def subscribed(self, topic: bytes, now: float, wall: int) -> None:
        """A subscription arrived (servers only)."""

    def unreachable(self, port: str, peer: bytes, now: float, wall: int) -> None:
        """A send found no such connection (servers only)."""

    def timer(self, payload: Any, now: float, wall: int) -> None:
        """A `Timer` of this process is due."""

    def tick(self, now: float, wall: int) -> None:
        """Let time act."""

    def next_deadline(self) -> float:
        """When `tick` is due at the latest."""

    def effects(self, now: float, wall: int) -> list[Effect]:
        """Hand over what the step caused; may raise `Crash`."""

    def check(self) -> list[str]:
        """What is wrong with this machine; empty if nothing is."""


@dataclass(frozen=True)
class Faults:
    """What may go wrong. ``drop`` and ``duplicate`` are probabilities for each message; the others are rates per simulated second, over
    the whole World. Durations are seconds, drawn evenly from the range.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.002
    cut: float = 0.0
    block: float = 0.0
    block_for: tuple[float, float] = (1.0, 30.0)
    kill: float = 0.0
    down_for: tuple[float, float] = (0.1, 20.0)
    freeze: float = 0.0
    freeze_for: tuple[float, float] = (0.5, 40.0)


CALM: Final = Faults()


@dataclass
class _Link:
    """A dealer's connection to one port of the server."""

    owner: str
    port: str
    peer: bytes
    generation: int = 0
    clear_at: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})
    blocked_until: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})


@dataclass
class _Host:
    machine: Machine
    up: bool = False
    gone: bool = False
    process: int = 0
    thaw_at: float = 0.0
    wake_at: float = -1.0
    links: dict[str, _Link] = field(default_factory=dict)
    topics: list[bytes] = field(default_factory=list)


class World:
    """A server machine, machines that connect to it, and everything that may happen to them.

    Parameters
    ----------
    seed : int
        Fixes every random choice, together with the machines and the order of the calls.
    server : Machine
        The broker.
    faults : Faults
        In force until `heal`.
    trace : callable, optional
        Called with a line for each thing that happens.
    """

    def __init__(self, seed: int, server: Machine, faults: Faults = CALM, trace: Callable[[str], None] | None = None) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.now = 0.0
        self.steps = 0
        self.seen: Counter[str] = Counter()
        self.checks: list[Callable[[], list[str]]] = []
        self._trace = trace
        self._server = server.name
        self._hosts: dict[str, _Host] = {}
        self._peers: dict[bytes, _Link] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.add(server)
        self._plan_fault()

    @property
    def wall(self) -> int:
        """UTC microseconds of the simulated hosts."""
        return WALL_START + int(self.now * 1e6)

    # ------------------------------------------------------------ machines

    def add(self, machine: Machine, ports: Sequence[str] = ()) -> None:
        """Bring a machine in and start it; it connects to these ports of the server."""
        host = self._hosts[machine.name] = _Host(machine)
        for port in ports:
            host.links[port] = self._connect(machine.name, port)
        self.start(machine.name)

    def is_up(self, name: str) -> bool:
        """Whether a machine's process runs (perhaps frozen)."""
        return self._hosts[name].up

    def start(self, name: str) -> None:
        """Start a machine's process."""
        host = self._hosts[name]
        if host.up or host.gone:
            return
        host.up = True
        host.process += 1
        self._note(f"{name} starts")
        host.machine.start(self.now, self.wall)
        if name == self._server:
            for other in self._hosts.values():
                self._resubscribe(other)
        self._settle(host)

    def kill(self, name: str) -> None:
        """Kill a machine's process (SIGKILL): its connections are gone, and what was under way to it."""
        host = self._hosts[name]
        if not host.up:
            return
        host.up = False
        host.process += 1
        host.thaw_at = 0.0
        self._note(f"{name} is killed")
        self.seen["kill"] += 1
        host.machine.stop()
        host.topics.clear()
        dead = list(self._peers.values()) if name == self._server else list(host.links.values())
        for link in dead:
            self._reset(link)

    def freeze(self, name: str, seconds: float) -> None:
        """Stop a machine (SIGSTOP) for a while; what arrives waits for it."""
        host = self._hosts[name]
        host.thaw_at = self.now + seconds
        self._note(f"{name} is frozen for {seconds:.1f} s")
        self.seen["freeze"] += 1
        self.later(seconds, lambda: self._settle(host))

    def poke(self, name: str, act: Callable[[], None]) -> None:
        """Do something to a running machine from outside (submit a job, say) and handle what it causes."""
        host = self._hosts[name]
        if host.up and self.now >= host.thaw_at:
            act()
            self._settle(host)

    # ------------------------------------------------------------ time

    def later(self, delay: float, act: Callable[[], None]) -> None:
        """Let something happen after a while."""
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, act))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, and check every invariant after each step.

        Returns
        -------
        bool
            Whether ``until`` became true.

        Raises
        ------
        Violation
            When something does not hold.
        """
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            if until():
                return True
            self.now, _, act = heapq.heappop(self._events)
            act()
            self.steps += 1
            self._check()
        self.now = end
        return until()

    def heal(self, lost: Sequence[str] = ()) -> None:
        """No more faults; cut lines carry again, frozen and dead machines come back, but for the ``lost`` ones, which never do."""
        self._note("everything heals")
        self.faults = CALM
        for link in self._peers.values():
            link.blocked_until = {True: 0.0, False: 0.0}
        for name, host in self._hosts.items():
            host.thaw_at = min(host.thaw_at, self.now)
            if name in lost:
                self.kill(name)
                host.gone = True
            elif host.up:
                self._settle(host)
            else:
                self.start(name)

    def _check(self) -> None:
        wrong = [problem for host in self._hosts.values() if host.up for problem in host.machine.check()]
        wrong += [problem for check in self.checks for problem in check()]
        if wrong:
            raise Violation(f"at {self.now:.3f} s, step {self.steps}: " + "; ".join(wrong))

    # ------------------------------------------------------------ what machines cause

    def _settle(self, host: _Host) -> None:
        """Carry out what a machine's last step caused, and see when it wants to be woken."""
        if not host.up or self.now < host.thaw_at:
            return
        try:
            effects = host.machine.effects(self.now, self.wall)
        except Crash as crash:
            self._note(f"{host.machine.name}: {crash}")
            self.seen["crash"] += 1
            for effect in crash.sent:
                self._carry_out(host, effect)
            self.kill(host.machine.name)
            self.later(self._draw(self.faults.down_for), lambda: self.start(host.machine.name))
            return
        for effect in effects:
            self._carry_out(host, effect)
        wake = host.machine.next_deadline()
        if wake != host.wake_at:
            host.wake_at = wake
            process = host.process
            self.later(max(wake - self.now, 0.0) + TIMER_LATE, lambda: self._wake(host, process, wake))

    def _wake(self, host: _Host, process: int, due: float) -> None:
        if host.process != process or not host.up or host.wake_at != due:
            return
        host.wake_at = -1.0
        if self.now < host.thaw_at:  # like a shell, a machine that wakes up reads its letter-box before it looks at the clock
            self.later(host.thaw_at - self.now + 0.01, lambda: self._wake_now(host, process))
        else:
            self._wake_now(host, process)

    def _wake_now(self, host: _Host, process: int) -> None:
        if host.process == process and host.up and self.now >= host.thaw_at:
            host.wake_at = -1.0
            host.machine.tick(self.now, self.wall)
            self._settle(host)

    def _carry_out(self, host: _Host, effect: Effect) -> None:
        if isinstance(effect, ToServer):
            self._send(host.links[effect.port], True, effect.frames)
        elif isinstance(effect, ToPeer):
            link = self._peers.get(effect.peer)
            if link is None or link.port != effect.port or not self._hosts[link.owner].up:
                host.machine.unreachable(effect.port, effect.peer, self.now, self.wall)
            else:
                self._send(link, False, effect.frames)
        elif isinstance(effect, Publication):
            for other in self._hosts.values():
                if other.up and any(effect.topic.startswith(topic) for topic in other.topics):
                    self._send(other.links["events"], False, effect.frames)
        elif isinstance(effect, Subscribe):
            host.topics.append(effect.topic)
            self._announce(host, effect.topic)
        elif isinstance(effect, Unsubscribe):
            if effect.topic in host.topics:
                host.topics.remove(effect.topic)
        elif isinstance(effect, Reconnect):
            self._reset(host.links[effect.port])
        else:
            process = host.process
            self.later(effect.delay, lambda: self._timer(host, process, effect.payload))

    def _timer(self, host: _Host, process: int, payload: Any) -> None:
        if host.process != process or not host.up:
            return
        if self.now < host.thaw_at:
            self.later(host.thaw_at - self.now, lambda: self._timer(host, process, payload))
            return
        host.machine.timer(payload, self.now, self.wall)
        self._settle(host)

    # ------------------------------------------------------------ the network

    def _connect(self, owner: str, port: str) -> _Link:
        link = _Link(owner, port, self.random.randbytes(5))
        self._peers[link.peer] = link
        return link

    def _reset(self, link: _Link) -> None:
        """The connection breaks: what is under way is lost, and the dealer comes back under another generated id."""
        self._peers.pop(link.peer, None)
        link.generation += 1
        link.peer = self.random.randbytes(5)
        link.clear_at = {True: self.now, False: self.now}
        self._peers[link.peer] = link
        if link.port == "events":
            self._resubscribe(self._hosts[link.owner])

    def _resubscribe(self, host: _Host) -> None:
        for topic in host.topics:
            self._announce(host, topic)

    def _announce(self, host: _Host, topic: bytes) -> None:
        self._carry(host.links["events"], True, lambda server: server.machine.subscribed(topic, self.now, self.wall))

    def _send(self, link: _Link, up: bool, frames: Frames) -> None:
        copies = 1
        if self.random.random() < self.faults.drop:
            copies = 0
            self.seen["drop"] += 1
        elif self.random.random() < self.faults.duplicate:
            copies = 2
            self.seen["duplicate"] += 1
        octets = [bytes(frame) for frame in frames]
        peer = link.peer if up else b""
        for _ in range(copies):
            self._carry(link, up, lambda host: host.machine.receive(link.port, peer, octets, self.now, self.wall))

    def _carry(self, link: _Link, up: bool, deliver: Callable[[_Host], None]) -> None:
        """Deliver after a delay: in order within one direction of a connection, in any order between connections."""
        arrives = self.now + self.random.expovariate(1.0 / self.faults.delay) if self.faults.delay else self.now
        arrives = max(arrives, link.clear_at[up], link.blocked_until[up])
        link.clear_at[up] = arrives
        generation = link.generation
        target = self._hosts[self._server] if up else self._hosts[link.owner]
        self.later(arrives - self.now, lambda: self._deliver(link, generation, up, target, deliver))

    def _deliver(self, link: _Link, generation: int, up: bool, target: _Host, deliver: Callable[[_Host], None]) -> None:
        if link.generation != generation or not target.up:
            return
        wait = max(target.thaw_at, link.blocked_until[up]) - self.now
        if wait > 0:
            self.later(wait, lambda: self._deliver(link, generation, up, target, deliver))
            return
        deliver(target)
        self._settle(target)

    # ------------------------------------------------------------ faults

    def _plan_fault(self) -> None:
        faults = self.faults
        total = faults.cut + faults.block + faults.kill + faults.freeze
        self.later(self.random.expovariate(total) if total else 10.0, self._strike)

    def _strike(self) -> None:
        faults = self.faults
        kinds = {"cut": faults.cut, "block": faults.block, "kill": faults.kill, "freeze": faults.freeze}
        if any(kinds.values()):
            kind = self.random.choices(list(kinds), list(kinds.values()))[0]
            if kind in ("cut", "block"):
                link = self.random.choice(list(self._peers.values())) if self._peers else None
                if link is not None:
                    self._strike_link(kind, link)
            else:
                self._strike_host(kind, self.random.choice(list(self._hosts)))
        self._plan_fault()

    def _strike_link(self, kind: str, link: _Link) -> None:
        self.seen[kind] += 1
        if kind == "cut":
            self._note(f"{link.owner}: connection to {link.port} breaks")
            self._reset(link)
            return
        seconds = self._draw(self.faults.block_for)
        directions = self.random.choice(((True,), (False,), (True, False)))
        self._note(f"{link.owner}: {link.port} is blocked for {seconds:.1f} s ({'both ways' if len(directions) == 2 else 'one way'})")
        for up in directions:
            link.blocked_until[up] = self.now + seconds

    def _strike_host(self, kind: str, name: str) -> None:
        host = self._hosts[name]
        if not host.up or self.now < host.thaw_at:
            return
        if kind == "freeze":
            self.freeze(name, self._draw(self.faults.freeze_for))
        else:
            self.kill(name)
            self.later(self._draw(self.faults.down_for), lambda: self.start(name))

    def _draw(self, span: tuple[float, float]) -> float:
        return self.random.uniform(*span)

    def _note(self, text: str) -> None:
        if self._trace is not None:
            self._trace(f"{self.now:9.3f}  {text}")
