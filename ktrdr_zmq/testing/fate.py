"""What strikes the World by itself: at random moments a random fault of a random machine or connection, as `Faults` says how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ktrdr_zmq.testing.network import DOWN, UP, draw

if TYPE_CHECKING:
    from ktrdr_zmq.testing.world import World

WAYS: Final = ((UP,), (DOWN,), (UP, DOWN))


class Fate:
    """Strikes again and again. The server is as likely to be hit as two others."""

    def __init__(self, world: World, server: str) -> None:
        self._world = world
        self._server = server

    def plan(self) -> None:
        """Choose the moment of the next fault; without any, look again later."""
        faults = self._world.faults
        total = faults.cut + faults.block + faults.kill + faults.freeze + faults.jump
        self._world.later(self._world.random.expovariate(total) if total else 10.0, self._strike)

    def _strike(self) -> None:
        faults, rng = self._world.faults, self._world.random
        rates = {"cut": faults.cut, "block": faults.block, "kill": faults.kill, "freeze": faults.freeze, "jump": faults.jump}
        if any(rates.values()):
            kind = rng.choices(list(rates), list(rates.values()))[0]
            if kind in ("cut", "block"):
                self._strike_link(kind)
            else:
                self._strike_host(kind, rng.choice([*self._world.names, self._server]))
        self.plan()

    def _strike_link(self, kind: str) -> None:
        world = self._world
        links = world.links
        if not links:
            return
        name, port = world.random.choice(links)
        if kind == "cut":
            world.cut(name, port)
        else:
            world.block(name, port, world.random.choice(WAYS), draw(world.random, world.faults.block_for))

    def _strike_host(self, kind: str, name: str) -> None:
        world = self._world
        if not world.is_up(name) or world.is_frozen(name):
            return
        if kind == "freeze":
            world.freeze(name, draw(world.random, world.faults.freeze_for), suspend=world.random.random() < 0.3)
        elif kind == "jump":
            world.jump(name, world.random.uniform(-world.faults.jump_by, world.faults.jump_by))
        else:
            world.kill(name)
            world.later(draw(world.random, world.faults.down_for), lambda: world.start(name))
