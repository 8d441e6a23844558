"""GPU first, CPU as a fallback: at once, after a wait, or when the last hope for a GPU has gone."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ktrdr_zmq import Client
from tests.e2e.house import House, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.mark.parametrize("wait", [0.0, 30.0])
def test_a_busy_gpu(house: House, tmp_path: Path, wait: float) -> None:
    """With gpu_wait 0 a CPU takes the job at once; with 30 s it waits, until the GPU worker leaves."""
    house.broker()
    gpu = house.worker("by-gpu", "--simulate-gpu", "--slots", "gpu=1")
    house.worker("by-cpu")
    gate = tmp_path / "gate"
    with Client(house.address) as client:
        first = client.submit("rogue", {"do": "work", "gate": str(gate)})
        eventually(lambda: first.status().state == "running")
        assert first.status().tag == "gpu"
        second = client.submit("rogue", {"do": "work"}, gpu_wait=wait)
        if wait:
            waiting = client.explain(second.id)
            assert second.status().state == "queued"
            assert any("GPU" in reason for _, reason in waiting.workers), waiting
            gpu.kill(signal.SIGTERM)
        assert second.result(timeout=20)["attempt"] == 1  # well before the 30 s are over
        info = second.status()
        assert (info.worker_id, info.tag) == ("by-cpu", "cpu")
        gate.touch()
        first.result(timeout=60)
