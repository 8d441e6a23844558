"""What a daemon tells of itself: to systemd (sd_notify without a dependency), and to a process that started it and waits."""

from __future__ import annotations

import contextlib
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


class ReadyLine:
    """The descriptor on which whoever started this process waits for one line of JSON: that it is ready, or why not.

    Only the first line is written. Afterwards the number may belong to another file of this process.

    Parameters
    ----------
    fd : int
        Below 0 nobody waits.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, document: dict[str, Any]) -> None:
        """Write the line and close the descriptor; whoever waited may have gone."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError), os.fdopen(fd, "w") as file:
                file.write(json.dumps(document) + "\n")
