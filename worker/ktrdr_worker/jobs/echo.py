"""The kind ``echo``: gives the body back. Made for trying out a cluster; ``seconds`` lets it take a while, with progress."""

from __future__ import annotations

import time
from typing import Any, Final

from ktrdr_worker.handler import JobContext

STEP: Final = 0.05


class Echo:
    """Returns what it was sent."""

    kind = "echo"
    versions = (1, 1)

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Wait for ``body["seconds"]`` if that is there, then return the body."""
        seconds = float(body.get("seconds", 0.0))
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < seconds:
            context.check_cancelled()
            context.progress(passed / seconds, stage="echo", text=f"{passed:.1f} of {seconds:g} s")
            time.sleep(min(STEP, seconds - passed))
        return {"schema": 1, **body}


handler = Echo()
