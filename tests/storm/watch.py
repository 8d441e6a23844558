"""Looks on: every event that says how a job ended, and what memory and descriptors the processes hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.errors import ProtocolError
from ktrdr_zmq.jobs import TERMINAL

EVERY_S = 1.0
LONG_LIVED_S = 60.0
"""Only a process that lived so long is judged."""
MOST_GROWTH = 24 << 20
"""Octets by which the resident memory of a process may grow from the first third of its life to the last."""
MOST_SLOPE = 4 << 20
"""Octets a minute that it may gain over the second half of its life."""
MOST_DESCRIPTORS = 30
"""Descriptors by which the last third may hold more than the first."""


class Sample(NamedTuple):
    """One look at a process."""

    at: float
    resident: int
    descriptors: int


class Watch:
    """A thread beside the storm.

    Attributes
    ----------
    ends : dict of str to set
        By job id, the different ``(rev, state)`` of terminal events.
    lives : dict
        By name and pid, the samples.
    """

    def __init__(self, port: int, alive: Callable[[], dict[str, int]]) -> None:
        self.ends: dict[str, set[tuple[int, str]]] = {}
        self.lives: dict[tuple[str, int], list[Sample]] = {}
        self._alive = alive
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; safe to call twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def settle(self) -> None:
        """Let events that are under way arrive."""
        self._stop.wait(0.5)

    def _run(self) -> None:
        context: zmq.Context[Any] = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"j.")
        socket.connect(f"tcp://127.0.0.1:{self._port + 2}")
        due = time.monotonic()
        while not self._stop.is_set():
            if socket.poll(100):
                _, *frames = socket.recv_multipart()
                self._event(frames)
            if time.monotonic() >= due:
                due = time.monotonic() + EVERY_S
                for name, pid in self._alive().items():
                    sample = look(pid)
                    if sample is not None:
                        self.lives.setdefault((name, pid), []).append(sample)
        socket.close()
        context.term()

    def _event(self, frames: list[bytes]) -> None:
        try:
            event, _ = codec.decode(frames, codec.EVENTS)
        except ProtocolError:
            return
        if isinstance(event, m.JobEvent) and event.state in TERMINAL:
            self.ends.setdefault(event.job_id.hex(), set()).add((event.rev, event.state))

    # ------------------------------------------------------------ memory and descriptors

    def long_lives(self) -> dict[str, list[Sample]]:
        """Samples of the processes that lived long enough to be judged, without their first ten seconds."""
        found = {}
        for (name, pid), samples in self.lives.items():
            settled = [sample for sample in samples if sample.at >= samples[0].at + 10.0]
            if settled and settled[-1].at - settled[0].at >= LONG_LIVED_S:
                found[f"{name} ({pid})"] = settled
        return found

    def broken(self) -> list[str]:
        """Processes that grow."""
        wrong = []
        for name, samples in self.long_lives().items():
            growth, slope, descriptors = trend(samples)
            if growth > MOST_GROWTH and slope > MOST_SLOPE:
                wrong.append(f"{name} grew by {growth / 1e6:.0f} MB, lately by {slope / 1e6:.1f} MB a minute")
            if descriptors > MOST_DESCRIPTORS:
                wrong.append(f"{name} held {descriptors:.0f} descriptors more at its end than at its begin")
        return wrong

    def report(self) -> dict[str, Any]:
        """The figures, for people."""
        trends = {name: trend(samples) for name, samples in self.long_lives().items()}
        every = [sample for samples in self.lives.values() for sample in samples]
        return {
            "processes": len(self.lives),
            "judged": len(trends),
            "most_resident_mb": round(max((s.resident for s in every), default=0) / 1e6, 1),
            "most_descriptors": max((s.descriptors for s in every), default=0),
            "worst_growth_mb": _worst({name: t[0] / 1e6 for name, t in trends.items()}),
            "worst_slope_mb_per_min": _worst({name: t[1] / 1e6 for name, t in trends.items()}),
            "worst_descriptor_growth": round(max((t[2] for t in trends.values()), default=0.0), 1),
        }


def _worst(figures: dict[str, float]) -> dict[str, float]:
    """The largest of each kind of process."""
    worst: dict[str, float] = {}
    for name, figure in figures.items():
        kind = name.split()[0]
        worst[kind] = max(worst.get(kind, figure), figure)
    return {kind: round(figure, 2) for kind, figure in worst.items()}


def look(pid: int) -> Sample | None:
    """Resident octets and open descriptors of a process; None if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return Sample(time.monotonic(), pages * 4096, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return None


def trend(samples: list[Sample]) -> tuple[float, float, float]:
    """Growth in octets between the medians of first and last third, slope in octets a minute over the second half, descriptors gained."""
    third = max(len(samples) // 3, 1)
    first, last = samples[:third], samples[-third:]
    half = samples[len(samples) // 2 :]
    mean_at = sum(s.at for s in half) / len(half)
    mean = sum(s.resident for s in half) / len(half)
    spread = sum((s.at - mean_at) ** 2 for s in half)
    slope = 60.0 * sum((s.at - mean_at) * (s.resident - mean) for s in half) / spread if spread else 0.0
    growth = _median([s.resident for s in last]) - _median([s.resident for s in first])
    return growth, slope, _median([s.descriptors for s in last]) - _median([s.descriptors for s in first])


def _median(values: list[int]) -> float:
    ordered = sorted(values)
    return float(ordered[len(ordered) // 2])
