"""A handler that misbehaves on request, loaded with ``--handlers rogue=rogue:handler``."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Rogue:
    """Does what ``body["do"]`` says; each deed is a method."""

    kind = "rogue"
    versions = (1, 1)

    def run(self, body: dict[str, Any], context: Any) -> dict[str, Any]:
        mark = body.get("mark")
        if mark:
            with Path(mark).open("a") as file:
                file.write(f"{context.attempt} {os.getpid()}\n")
        result = getattr(self, body["do"])(body, context)
        return {"schema": 1, "did": body["do"], "attempt": context.attempt, "pid": os.getpid(), **(result or {})}

    def work(self, body: dict[str, Any], context: Any) -> None:
        """Run for so many seconds, with progress, until the file ``gate`` exists if one is given."""
        gate = body.get("gate")
        seconds = body.get("seconds", 0.0)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds or (gate and not Path(gate).exists()):
            context.check_cancelled()
            context.progress(min((time.monotonic() - begun) / max(seconds, 60.0), 0.99), stage="work")
            time.sleep(0.02)

    def hold_gil(self, body: dict[str, Any], context: Any) -> None:
        ctypes.PyDLL(None).sleep(int(body["seconds"]))  # PyDLL keeps the GIL

    def raise_(self, body: dict[str, Any], context: Any) -> None:
        print("about to fail", file=sys.stderr, flush=True)
        raise ValueError("the handler's own mistake")

    def segfault(self, body: dict[str, Any], context: Any) -> None:
        ctypes.string_at(0)

    def eat_memory(self, body: dict[str, Any], context: Any) -> None:
        hoard = []
        for _ in range(10_000):
            hoard.append(b"x" * 10_000_000)
            time.sleep(0.02)

    def print_much(self, body: dict[str, Any], context: Any) -> None:
        line = "x" * 99_999 + "\n"
        for _ in range(body["lines"]):
            sys.stdout.write(line)

    def fork(self, body: dict[str, Any], context: Any) -> dict[str, Any]:
        """Leave a grandchild behind that ignores SIGTERM."""
        child = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"], stdin=subprocess.DEVNULL)
        self.work(body, context)
        return {"grandchild": child.pid}

    def ignore_sigterm(self, body: dict[str, Any], context: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if body.get("ready"):
            Path(body["ready"]).touch()
        while True:
            time.sleep(1)

    def never_end(self, body: dict[str, Any], context: Any) -> None:
        while True:
            time.sleep(0.05)


handler = Rogue()
