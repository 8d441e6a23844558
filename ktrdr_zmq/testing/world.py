"""The World itself: hosts with their processes and clocks, the order of events, and the faults that strike them."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from ktrdr_zmq.testing.clock import Clock
from ktrdr_zmq.testing.fate import Fate
from ktrdr_zmq.testing.host import Host
from ktrdr_zmq.testing.machine import (
    Crash,
    Effect,
    Frames,
    Machine,
    Publication,
    Reconnect,
    Subscribe,
    Timer,
    ToPeer,
    ToServer,
    Unsubscribe,
    Violation,
)
from ktrdr_zmq.testing.network import CALM, DOWN, UP, Faults, Link, Network, draw

TIMER_LATE: Final = 1e-4
"""A timer fires a little after its time, never on the dot: a deadline that rounding puts a hair ahead is reached all the same."""

LINGER: Final = 0.5
"""Seconds for which a process that ends by itself waits until its last words are gone."""

_WAY_NAMES: Final = {(UP,): "towards the server", (DOWN,): "away from the server", (UP, DOWN): "both ways"}


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
    describe : callable, optional
        Says what frames are, for the trace: takes the port, whether they go to the server, and the frames.

    Attributes
    ----------
    now : float
        Seconds since the World began; no machine sees this clock.
    checks : list of callable
        Asked after every step, like the machines that the step has touched.
    on_quit : callable
        Takes the name and exit code of a machine that has ended by itself.
    """

    def __init__(
        self,
        seed: int,
        server: Machine,
        faults: Faults = CALM,
        trace: Callable[[str], None] | None = None,
        describe: Callable[[str, bool, Frames], str] | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.seen: Counter[str] = Counter()
        self.checks: list[Callable[[], list[str]]] = []
        self.on_quit: Callable[[str, int], None] = lambda name, code: None
        self._trace = trace
        self._describe = describe
        self._server = server.name
        self._hosts: dict[str, Host] = {}
        self._touched: dict[str, Host] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        tell = self._tell if trace is not None and describe is not None else None
        self._network = Network(self.random, self.at, self._arrive, self.seen, tell)
        self._network.faults = faults
        self.add(server)
        Fate(self, server.name).plan()

    @property
    def faults(self) -> Faults:
        """What may go wrong now."""
        return self._network.faults

    @property
    def wall(self) -> int:
        """UTC microseconds that the server shows."""
        return self._hosts[self._server].clock.wall(self.now)

    # ------------------------------------------------------------ machines

    def add(self, machine: Machine, ports: Sequence[str] = ()) -> None:
        """Bring a machine in and start it; it connects to these ports of the server."""
        drift = self.faults.drift
        clock = Clock(1.0 + self.random.uniform(-drift, drift), self.random.uniform(0.0, 1e5)) if drift else Clock()
        host = self._hosts[machine.name] = Host(machine, clock)
        for port in ports:
            host.links[port] = self._network.connect(machine.name, port)
        self.start(machine.name)

    @property
    def names(self) -> list[str]:
        """All machines, the server first."""
        return list(self._hosts)

    @property
    def links(self) -> list[tuple[str, str]]:
        """All connections: the machine and the port of each."""
        return [(link.owner, link.port) for link in self._network.peers.values()]

    def is_up(self, name: str) -> bool:
        """Whether a machine's process runs (perhaps frozen)."""
        return self._hosts[name].up

    def is_frozen(self, name: str) -> bool:
        """Whether a machine stands still."""
        return self.now < self._hosts[name].thaw_at

    def start(self, name: str) -> None:
        """Start a machine's process."""
        host = self._hosts[name]
        if host.up or host.gone:
            return
        host.up = True
        host.wake_at = -1.0
        host.process += 1
        if host.process > 1:
            self._hang_up(host)
        self.note(f"{name} starts")
        host.machine.start(host.clock.now(self.now), host.clock.wall(self.now))
        if name == self._server:
            for other in self._hosts.values():
                self._resubscribe(other)
        self._settle(host)

    def kill(self, name: str, fault: str = "kill") -> None:
        """Kill a machine's process (SIGKILL): its connections are gone, and what was under way to it."""
        host = self._hosts[name]
        if not host.up:
            return
        host.up = False
        host.process += 1
        host.waiting.clear()
        self._thaw(host)
        if fault:
            self.note(f"{name} is killed")
            self.seen[fault] += 1
        host.machine.stop()
        host.topics.clear()
        self._touched.pop(name, None)
        if fault:
            self._hang_up(host)
        else:  # it has ended by itself, and what it said last is still delivered
            process = host.process
            self.later(LINGER, lambda: self._hang_up(host) if host.process == process else None)

    def _hang_up(self, host: Host) -> None:
        dead = list(self._network.peers.values()) if host.machine.name == self._server else list(host.links.values())
        for link in dead:
            self._reset(link)

    def retire(self, name: str) -> None:
        """A machine never comes back."""
        self.kill(name)
        self._hosts[name].gone = True

    def freeze(self, name: str, seconds: float, *, suspend: bool = False) -> None:
        """Stop a machine (SIGSTOP) for a while; what arrives waits for it. ``suspend``: its monotonic clock stands still as well."""
        host = self._hosts[name]
        host.thaw_at = self.now + seconds
        what = "suspended" if suspend else "frozen"
        self.note(f"{name} is {what} for {seconds:.1f} s")
        self.seen["suspend" if suspend else "freeze"] += 1
        if suspend:
            host.suspended_at = self.now

        def thaw() -> None:
            if self.now >= host.thaw_at:
                self._thaw(host)

        self.later(seconds, thaw)

    def _thaw(self, host: Host) -> None:
        """A machine goes on."""
        host.thaw_at = min(host.thaw_at, self.now)
        if host.suspended_at is not None:
            host.clock.stand_still(self.now - host.suspended_at)
            host.suspended_at = None
        waiting, host.waiting = host.waiting, []
        for act in waiting:
            self.at(self.now, act)
        self._settle(host)

    def jump(self, name: str, seconds: float) -> None:
        """Set a machine's wall clock forward, or back."""
        self.note(f"{name}: the wall clock is set by {seconds:+.0f} s")
        self.seen["jump"] += 1
        self._hosts[name].clock.jump(seconds)

    def cut(self, name: str, port: str) -> None:
        """Break a connection; both ends notice, and the dealer comes back at once."""
        self.note(f"{name}: connection to {port} breaks")
        self.seen["cut"] += 1
        self._reset(self._hosts[name].links[port])

    def block(self, name: str, port: str, ways: tuple[int, ...], seconds: float) -> None:
        """Hold up everything on a connection that goes on standing."""
        self.note(f"{name}: {port} is blocked for {seconds:.1f} s {_WAY_NAMES[ways]}")
        self.seen["block both ways" if len(ways) == 2 else "block one way"] += 1
        self._network.block(self._hosts[name].links[port], ways, seconds)

    def poke(self, name: str, act: Callable[[], None]) -> None:
        """Do something to a running machine from outside (submit a job, say) and handle what it causes."""
        host = self._hosts[name]
        if host.up and self.now >= host.thaw_at:
            act()
            self._settle(host)

    def now_of(self, name: str) -> float:
        """What a machine's monotonic clock shows."""
        return self._hosts[name].clock.now(self.now)

    def wall_of(self, name: str) -> int:
        """What a machine's wall clock shows."""
        return self._hosts[name].clock.wall(self.now)

    # ------------------------------------------------------------ time

    def later(self, delay: float, act: Callable[[], None]) -> None:
        """Let something happen after a while."""
        self.at(self.now + delay, act)

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Let something happen at a moment, after what was planned for the same moment before."""
        self._count += 1
        heapq.heappush(self._events, (moment, self._count, act))

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
            self._network.now = self.now
            act()
            self.steps += 1
            self._check()
        self.now = self._network.now = end
        return until()

    def heal(self, lost: Sequence[str] = ()) -> None:
        """No more faults; cut lines carry again, frozen and dead machines come back, but for the ``lost`` ones, which never do."""
        self.note("everything heals")
        self._network.heal()
        for name, host in self._hosts.items():
            if name in lost:
                self.retire(name)
            elif host.up and self.now < host.thaw_at:
                self._thaw(host)
            else:
                self.start(name)

    def _check(self) -> None:
        """Ask the machines that this step has touched, and those who look at the whole: the others cannot have changed."""
        wrong = [problem for host in self._touched.values() for problem in host.machine.check()]
        self._touched.clear()
        for check in self.checks:
            wrong += check()
        if wrong:
            raise Violation(f"at {self.now:.3f} s, step {self.steps}: " + "; ".join(wrong))

    # ------------------------------------------------------------ what machines cause

    def _settle(self, host: Host) -> None:
        """Carry out what a machine's last step caused, and see when it wants to be woken."""
        if not host.up or self.now < host.thaw_at:
            return
        machine, clock = host.machine, host.clock
        self._touched[machine.name] = host
        try:
            effects = machine.effects(clock.now(self.now), clock.wall(self.now))
        except Crash as crash:
            self.note(f"{machine.name}: {crash}")
            for effect in crash.sent:
                self._carry_out(host, effect)
            self.kill(machine.name, "crash")
            self.later(draw(self.random, self.faults.down_for), lambda: self.start(machine.name))
            return
        process = host.process
        for effect in effects:
            self._carry_out(host, effect)
        if host.process != process:
            return
        wake = clock.when(machine.next_deadline())
        if wake != host.wake_at:
            host.wake_at = wake
            self.later(max(wake - self.now, 0.0) + TIMER_LATE, lambda: self._wake(host, process, wake))

    def _wake(self, host: Host, process: int, due: float) -> None:
        if host.process != process or host.wake_at != due:
            return
        host.wake_at = -1.0
        if self.now < host.thaw_at:  # like a shell, a machine that wakes up reads its letter-box before it looks at the clock
            host.waiting.append(lambda: self.later(0.01, lambda: self._wake_now(host, process)))
        else:
            self._wake_now(host, process)

    def _wake_now(self, host: Host, process: int) -> None:
        if host.process == process and self.now >= host.thaw_at:
            host.wake_at = -1.0
            host.machine.tick(host.clock.now(self.now), host.clock.wall(self.now))
            self._settle(host)

    def _carry_out(self, host: Host, effect: Effect) -> None:
        if isinstance(effect, ToServer):
            self._network.send(host.links[effect.port], UP, effect.frames)
        elif isinstance(effect, ToPeer):
            link = self._network.peers.get(effect.peer)
            if link is None or link.port != effect.port or not self._hosts[link.owner].up:
                host.machine.unreachable(effect.port, effect.peer, host.clock.now(self.now), host.clock.wall(self.now))
                self.later(0.0, lambda: self._settle(host))
            else:
                self._network.send(link, DOWN, effect.frames)
        elif isinstance(effect, Publication):
            for other in self._hosts.values():
                if other.topics and any(effect.topic.startswith(topic) for topic in other.topics):
                    self._network.publish(other.links["events"], effect.frames)
        elif isinstance(effect, Timer):
            process = host.process
            self.later(effect.delay, lambda: self._timer(host, process, effect.payload))
        elif isinstance(effect, Subscribe):
            host.topics.append(effect.topic)
            self._network.carry(host.links["events"], UP, effect.topic)
        elif isinstance(effect, Unsubscribe):
            if effect.topic in host.topics:
                host.topics.remove(effect.topic)
        elif isinstance(effect, Reconnect):
            self._reset(host.links[effect.port])
        else:
            self.note(f"{host.machine.name} ends with code {effect.code}")
            self.kill(host.machine.name, "")
            self.on_quit(host.machine.name, effect.code)

    def _timer(self, host: Host, process: int, payload: Any) -> None:
        if host.process != process or not host.up:
            return
        if self.now < host.thaw_at:
            host.waiting.append(lambda: self._timer(host, process, payload))
            return
        host.machine.timer(payload, host.clock.now(self.now), host.clock.wall(self.now))
        self._settle(host)

    # ------------------------------------------------------------ the network

    def _reset(self, link: Link) -> None:
        self._network.reset(link)
        if link.port == "events":
            self._resubscribe(self._hosts[link.owner])

    def _resubscribe(self, host: Host) -> None:
        for topic in host.topics:
            self._network.carry(host.links["events"], UP, topic)

    def _arrive(self, link: Link, way: int, what: Frames | bytes, again: Callable[[], None]) -> bool:
        host = self._hosts[link.owner if way == DOWN else self._server]
        if not host.up:
            return True
        if host.thaw_at > self.now:
            host.waiting.append(again)
            return False
        now, wall = host.clock.now(self.now), host.clock.wall(self.now)
        if isinstance(what, bytes):
            host.machine.subscribed(what, now, wall)
        else:
            host.machine.receive(link.port, link.peer if way == UP else b"", what, now, wall)
        self._settle(host)
        return True

    # ------------------------------------------------------------ the trace

    def note(self, text: str) -> None:
        """A line of the trace, marked as something that was done to the machines."""
        if self._trace is not None:
            self._trace(f"{self.now:9.3f}  *** {text}" if self._describe is not None else f"{self.now:9.3f}  {text}")

    def _tell(self, link: Link, way: int, frames: Frames, mark: str) -> None:
        assert self._trace is not None
        assert self._describe is not None
        what = self._describe(link.port, way == UP, frames)
        if what:
            ends = f"{link.owner} -> {self._server}" if way == UP else f"{self._server} -> {link.owner}"
            self._trace(f"{self.now:9.3f}  {ends:<24} {what}{f'   *** {mark}' if mark else ''}")
