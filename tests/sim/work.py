"""What a simulated job does: the body that its client sends and its child obeys."""

from __future__ import annotations

import msgspec


class Work(msgspec.Struct):
    """How long a job takes, how many attempts crash, whether it listens to SIGTERM, and its result.

    ``outcome``: done, fail, too large, limit (killed by its agent for memory), unstorable (its product is too large to be stored), or
    retry (asks ``times`` times to be tried later). ``checkpoint_every`` seconds it saves how far it is. ``starts_badly``: in so many
    attempts no process can be started for it.
    """

    seconds: float
    crashes: int
    stubborn: bool
    result: bytes
    outcome: str = "done"
    times: int = 0
    checkpoint_every: float = 0.0
    progress_every: float = 0.0
    product: bool = False
    log: bool = False
    starts_badly: int = 0
