"""The benchmarks about the store and about recovery run, and what they print is plausible; the figures themselves are nobody's promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]


def figures(name: str, *options: str) -> dict[str, Any]:
    argv = [sys.executable, str(ROOT / "benchmarks" / name), *options, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_what_jobs_cost_the_broker() -> None:
    found = figures("store.py", "--queued", "3000", "--ended", "10000")
    assert 100 < found["queued_octets_per_job"] < 20_000
    assert found["database_mb"] > 1


def test_how_long_recovery_takes() -> None:
    found = figures("recovery.py", "--times", "1")["seconds"]
    assert found["worker_lost"]["min"] > 9.0, "a worker that is only silent is not given up sooner"
    assert found["worker_silent"]["min"] > 9.0
    assert all(row["min"] > 0 for row in found.values())
