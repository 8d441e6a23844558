"""What is made of jobs that are done, through real processes: the page of a backtest, checks of a model."""

from __future__ import annotations

import re

import pytest

from ktrdr_zmq import Client
from tests.e2e.house import House

pytestmark = [pytest.mark.e2e, pytest.mark.science, pytest.mark.timeout(300)]

TRAIN = ("models", "train", "--strategy", "neuro_mean_reversion", "--symbol", "EURUSD", "--timeframe", "1d", "--set", "training.epochs=3")


def test_the_page_of_a_backtest(house: House) -> None:
    house.broker()
    house.worker("maker", kinds="training,backtesting")
    house.cli_json(*TRAIN)
    tested = house.cli_json("backtest", "run", "-m", "last", "--name", '"><img src=x>', "--label", "a=<img>")
    page = house.folder / "page.html"

    refused = house.cli("backtest", "report", "-o", str(page))
    assert refused.returncode == 3
    assert "No workers available for report. Start a worker that offers report." in refused.stderr

    house.worker("printer", kinds="report")
    made = house.cli_json("backtest", "report", "-o", str(page))
    assert (made["worker_id"], made["state"], made["path"]) == ("printer", "done", str(page))
    assert made["result"]["backtest"] == tested["job_id"]
    assert made["result"]["with_prices"] is True
    text = page.read_text()
    assert len(text.encode()) == made["result"]["octets"]
    assert f"{tested['result']['metrics']['total_return']:.2%}".replace("%", " %") in text
    assert tested["job_id"] in text
    assert made["result"]["training"] in text
    assert "<img" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)

    with Client(house.address) as client:
        again = client.report(tested["job_id"]).save(house.folder / "again.html", timeout=60)
    assert again.read_text() == text
    wrong = house.cli("backtest", "report", "last:training", "-o", str(page))
    assert wrong.returncode == 2
    assert "is no backtest" in wrong.stderr


def test_the_checks_of_a_model(house: House) -> None:
    house.broker()
    house.worker("maker", kinds="training")
    model = house.cli_json(*TRAIN)
    refused = house.cli("backtest", "check-lookahead")
    assert refused.returncode == 3
    assert "No workers available for check-lookahead. Start a worker that offers check-lookahead." in refused.stderr

    honest = house.worker("honest", kinds="check-lookahead,check-warmup")
    clean = house.cli_json("backtest", "check-lookahead", "-m", "last", "--samples", "10")
    assert (clean["worker_id"], clean["result"]["clean"]) == ("honest", True)
    assert clean["result"]["model_digest"] == model["result"]["model_digest"]
    warm = house.cli_json("backtest", "check-warmup", "--samples", "10")
    assert warm["result"]["lengths"][0]["bars"] == warm["result"]["warmup_bars"]
    with Client(house.address) as client:
        assert client.check_lookahead("last", samples=10).result(timeout=60).clean is True
        assert client.check_warmup(samples=10).result(timeout=60)["digest"] == warm["result"]["digest"]
    honest.kill(15)

    house.worker("liar", "--handlers", "check-lookahead=peeking:handler", kinds="check-lookahead")
    caught = house.cli_json("backtest", "check-lookahead", "--samples", "10", exit_code=1)
    assert (caught["worker_id"], caught["state"]) == ("liar", "done")
    first = caught["result"]["changes"][0]
    assert (first["step"], first["first"]) == ("feature", first["cut_after"])
    shown = house.cli("jobs", "result", caught["job_id"])
    assert "LOOK-AHEAD: the feature" in shown.stdout
