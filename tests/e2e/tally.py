"""A handler that writes down each time it is run, loaded with ``--handlers tally=tally:handler``."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import time
from pathlib import Path
from typing import Any


class Tally:
    """Appends ``number attempt`` to the file ``body["mark"]``, then does what the body says."""

    kind = "tally"
    versions = (1, 1)

    def run(self, body: dict[str, Any], context: Any) -> dict[str, Any]:
        number = body["number"]
        line = f"{number} {context.attempt}\n".encode()
        descriptor = os.open(body["mark"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)  # one write: whole, whoever else appends
        finally:
            os.close(descriptor)
        if body.get("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        end = time.monotonic() + body.get("seconds", 0.0)
        while time.monotonic() < end:
            context.check_cancelled()
            select.select([], [], [], 0.01)  # libfaketime, where a test uses it, breaks time.sleep
        if body.get("octets"):
            context.add_artifact("file", content(number, body["octets"]))
        inputs = {name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in context.inputs.items()}
        return {"schema": 1, "number": number, "attempt": context.attempt, "inputs": inputs}


def content(number: int, octets: int) -> bytes:
    """The file that a job leaves: anybody can tell whether it is whole."""
    block = hashlib.sha256(str(number).encode()).digest()
    return (block * (octets // len(block) + 1))[:octets]


handler = Tally()
