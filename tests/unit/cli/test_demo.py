"""The workers of the demo, which `--keep` leaves to a person who goes on."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ktrdr_cli.cluster import DEMO_WORKERS

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


def test_each_kind_of_job_has_one_worker_and_the_model_travels() -> None:
    offered = [kind for worker in DEMO_WORKERS for kind in worker["kinds"]]
    assert sorted(offered) == sorted(PROJECT["entry-points"]["ktrdr_zmq.handlers"])
    trains, tests = ([worker["id"] for worker in DEMO_WORKERS if kind in worker["kinds"]] for kind in ("training", "backtesting"))
    assert trains != tests
