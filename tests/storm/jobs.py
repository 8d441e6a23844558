"""What the job with a number is. A function of the number, so that a client that was killed submits the same again. Pure."""

from __future__ import annotations

import hashlib
from typing import Any, Final

MAX_CRASHES: Final = 3
MAX_LOSSES: Final = 50


def poison(number: int) -> bool:
    """Whether the job kills its own process: it must fail after its limit."""
    return number % 499 == 7


def cancelled(number: int) -> bool:
    """Whether its submitter cancels it."""
    return number % 97 == 11


def octets(number: int) -> int:
    """The size of the file that it leaves; 0 for none."""
    return 50_000 if number % 101 == 3 else 0


def body(number: int, mark: str) -> dict[str, Any]:
    """The parameters of the handler `tally`."""
    seconds = 2.0 if number % 211 == 5 else 0.05 if number % 20 == 0 else 0.0
    return {"number": number, "mark": mark, "seconds": seconds, "octets": octets(number), "poison": poison(number)}


def job_id(seed: int, number: int) -> str:
    """An id of the submitter's own: the same for the same storm and number."""
    return hashlib.sha256(f"storm {seed} {number}".encode()).hexdigest()[:32]
