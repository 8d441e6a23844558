"""`ktrdr chaos` on a cluster of one's own: the mild form on any, the one that kills on that of `ktrdr up`."""

from __future__ import annotations

import json

import pytest

from tests.e2e.house import House

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def even(ledger: dict[str, object]) -> None:
    assert ledger["broken"] == []
    assert ledger["submitted"] == ledger["acknowledged"]
    assert (ledger["lost"], ledger["duplicates"], ledger["unfinished"]) == (0, 0, 0)


def test_a_mild_storm_comes_out_even(house: House) -> None:
    house.broker()
    house.worker("one", kinds="echo")
    house.worker("two", kinds="echo,noop")
    done = house.cli("chaos", "--minutes", "0.12", "--rate", "30", "--pause", "0.25", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    ledger = json.loads(done.stdout)
    even(ledger)
    assert int(ledger["submitted"]) >= 100
    assert sum(ledger["disturbances"].values()) > 5
    assert not any(worker["draining"] for worker in house.cli_json("workers", "list")["workers"])
    assert len(house.cli_json("jobs", "list", "--label", f"chaos={ledger['run']}", "--limit", "1000")["jobs"]) >= 100


@pytest.mark.slow
def test_what_is_killed_of_up_is_started_again(house: House) -> None:
    up = house.cli("up", "--workers", "2", "--data-dir", str(house.folder / "up"), "--detach")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        other = house.cli("--broker", "127.0.0.1:1", "chaos", "--kill", "--yes")
        assert other.returncode == 4
        done = house.cli("chaos", "--minutes", "0.15", "--rate", "20", "--pause", "0.5", "--seed", "131", "--kill", "--yes", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        ledger = json.loads(done.stdout)
        even(ledger)
        assert {"broker killed", "worker killed"} <= ledger["disturbances"].keys()  # this seed begins with them
    finally:
        down = house.cli("down")
    assert down.returncode == 0, down.stderr
    assert "was killed, and was started again" in (house.folder / "up" / "up.log").read_text()


def test_killing_needs_an_up(house: House) -> None:
    house.broker()
    house.worker("one", kinds="echo")
    done = house.cli("chaos", "--kill", "--yes")
    assert done.returncode == 2
    assert "ktrdr up" in done.stderr
