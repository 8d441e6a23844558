"""A long line between two taps: every frame arrives later, by a delay that varies. Run inside a namespace; ends when it is killed.

    python delay_line.py NEAR FAR DELAY_MS JITTER_MS

The kernel has `tc netem` for this, but not every kernel has it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
import sys
from collections.abc import Callable

TUNSETIFF = 0x400454CA
TAP, WITHOUT_HEADER = 0x0002, 0x1000
LARGEST_FRAME = 65_535


def tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", name.encode(), TAP | WITHOUT_HEADER))
    return descriptor


def carrier(loop: asyncio.AbstractEventLoop, source: int, target: int, delay: float, jitter: float) -> Callable[[], None]:
    """Takes what has come in at one end, and puts it out at the other in time; frames may overtake each other."""

    def deliver(frame: bytes) -> None:
        try:
            os.write(target, frame)
        except OSError:  # the far end is down, or its queue is full: the frame is lost, as on any line
            return

    def carry() -> None:
        while True:
            try:
                frame = os.read(source, LARGEST_FRAME)
            except OSError:  # nothing more for now, or the near end is down
                return
            loop.call_later(max(delay + random.uniform(-jitter, jitter), 0.0), deliver, frame)

    return carry


async def main(near: str, far: str, delay: float, jitter: float) -> None:
    loop = asyncio.get_running_loop()
    ends = tap(near), tap(far)
    loop.add_reader(ends[0], carrier(loop, *ends, delay, jitter))
    loop.add_reader(ends[1], carrier(loop, *reversed(ends), delay, jitter))  # type: ignore[arg-type]
    sys.stdout.write("up\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000, float(sys.argv[4]) / 1000))
