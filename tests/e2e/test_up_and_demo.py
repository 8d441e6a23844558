"""The cluster of one command, and the demo."""

from __future__ import annotations

import json

import pytest

from tests.e2e.house import House

pytestmark = [pytest.mark.e2e, pytest.mark.science, pytest.mark.timeout(300)]


def test_up_down_and_a_second_up(house: House, tmp_path: object) -> None:
    up = house.cli("up", "--workers", "1", "--data-dir", str(house.folder / "up"), "--detach")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        workers = house.cli_json("workers", "list")["workers"]
        assert [worker["state"] for worker in workers] == ["live"]
        assert {"training", "backtesting", "report", "check-lookahead", "check-warmup"} <= set(workers[0]["kinds"]), "without --kinds: all"
        again = house.cli("up", "--detach")
        assert again.returncode == 3
        assert "ktrdr down" in again.stderr
    finally:
        down = house.cli("down")
    assert down.returncode == 0, down.stderr
    assert house.cli("jobs", "list").returncode == 2


def test_the_demo_trains_on_one_worker_and_tests_on_another(house: House) -> None:
    done = house.cli("demo", "--json", timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    training, backtesting = document["training"], document["backtesting"]
    assert training["worker"] != backtesting["worker"]
    assert training["device"] == "cpu"
    assert training["epochs"] > 0
    assert 0 < training["test"]["accuracy"] < 1
    assert isinstance(backtesting["trades"], int)
    assert backtesting["trades"] == backtesting["metrics"]["trades"]
    assert backtesting["model_digest"] == training["model_digest"]
    assert len(training["job_id"]) == len(backtesting["job_id"]) == 32
