"""What a daemon tells of itself: to systemd (sd_notify without a dependency), and to a process that started it and waits."""

from __future__ import annotations

import json
import os
import socket
from typing import Any


def notify(state: str) -> bool:
    """Send systemd a state, for example ``READY=1``.

    Returns
    -------
    bool
        Whether anybody was told.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError:
            return False
    return True


def watchdog_interval() -> float:
    """Seconds between the signs of life that systemd wants; 0 if it wants none."""
    micros = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(micros) / 2e6 if micros.isdigit() and mine else 0.0


def announce(fd: int, document: dict[str, Any]) -> None:
    """Write a JSON line to the descriptor that whoever started this process waits on, and close it; below 0 there is nobody."""
    if fd >= 0:
        with os.fdopen(fd, "w") as file:
            file.write(json.dumps(document) + "\n")
