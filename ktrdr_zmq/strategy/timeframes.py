"""Timeframes of bars, and which can be made from which. Pure arithmetic."""

from __future__ import annotations

from typing import Final

from ktrdr_zmq.errors import UsageError

MINUTES: Final = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1d": 1440, "1w": 10_080}
"""Length of a bar in minutes. A day is a session and a week five to seven of them, so that theirs are nominal."""


def parse_timeframe(text: str) -> str:
    """Check a timeframe.

    Raises
    ------
    UsageError
        When it is none.
    """
    if text not in MINUTES:
        raise UsageError(f"There is no timeframe {text!r}; there are {', '.join(MINUTES)}.")
    return text


def can_derive(finer: str, wanted: str) -> bool:
    """Whether bars of `wanted` are bars of `finer`, or can be made from them; false for what is no timeframe."""
    if finer not in MINUTES or wanted not in MINUTES:
        return False
    return MINUTES[wanted] % MINUTES[finer] == 0
