"""The kind ``noop``: does nothing, as quickly as possible. What is left is the cost of the framework; benchmarks use it."""

from __future__ import annotations

from typing import Any

from ktrdr_worker.handler import JobContext


class Noop:
    """Returns an empty result."""

    kind = "noop"
    versions = (1, 1)

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:  # the contract's signature
        """Return at once."""
        return {"schema": 1}


handler = Noop()
