"""sd_notify without a dependency: tell systemd that a daemon is ready, alive, or stopping. Does nothing elsewhere."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Send a state, for example ``READY=1``.

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
