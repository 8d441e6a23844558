"""The short form of the storm: everything that can be killed, stopped or doubled is, and the ledger comes out even."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.storm.__main__ import main

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_short_storm_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--jobs", "3000", "--broker-kills", "10", "--worker-kills", "20", "--keep", str(tmp_path), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0, report
    assert report["submitted"] == report["acknowledged"] == 3000
    assert report["lost"] == report["duplicate_outcomes"] == 0
    assert report["faults"]["broker-kill"] == 10
    assert report["faults"]["worker-kill"] == 20
