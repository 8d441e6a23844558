"""What a daemon does when its own code fails: it ends, and whoever looks after it starts it again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


def end_on_error(end: Callable[[], None]) -> None:
    """Have `end` called when a callback of the running loop raises; the error is logged.

    asyncio alone would go on: with half of a batch dealt with, or a timer that nobody arms again. What a daemon has promised is on disk, so
    a new process knows better what to do than one that has lost count.
    """

    def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if "handle" in context:
            end()

    asyncio.get_running_loop().set_exception_handler(failed)
