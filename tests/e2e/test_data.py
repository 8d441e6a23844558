"""Bars through real processes: imported by one client, found by another, checked on a worker, removed."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

import pytest

from ktrdr_zmq import Client
from ktrdr_zmq.samples import find_sample
from tests.e2e.house import House

pytestmark = [pytest.mark.e2e, pytest.mark.science, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "unit" / "trading" / "sources"


def documented_imports() -> list[list[str]]:
    """The commands of docs/data.md for the samples' sources, with the files where they are here."""
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ktrdr (data import \w+_as_published\.csv .*)$", text, re.MULTILINE)
    words = [shlex.split(line) for line in lines]
    assert len(words) == 2
    return [[str(SOURCES / word) if word.endswith("_as_published.csv") else word for word in line] for line in words]


def test_imported_bars_are_found_by_everybody_until_they_are_removed(house: House, tmp_path: Path) -> None:
    house.broker()
    house.worker("reader", kinds="data-import,data-check,training")
    digests = {}
    for words in documented_imports():
        document = house.cli_json(*words, "--output", str(tmp_path / "out"))
        result = document["result"]
        sample = find_sample(result["symbol"], result["timeframe"])
        assert sample is not None
        octets = Path(document["saved"][0]).read_bytes()
        assert octets == b"\n".join([*sample.path.read_bytes().splitlines()[:201], b""])
        assert result["digest"] == hashlib.sha256(octets).hexdigest()
        assert result["summary"]["bars"] == 200
        digests[result["symbol"]] = result["digest"]
    listed = house.cli_json("data", "list")["data"]
    assert [(each["origin"], each["symbol"]) for each in listed] == [
        ("cluster", "SP500"), ("cluster", "EURUSD"), ("built-in", "EURUSD"), ("built-in", "SP500"),
    ]  # fmt: skip
    shown = house.cli_json("data", "show", "EURUSD_1h")["result"]
    assert (shown["digest"], shown["summary"]["first"]) == (digests["EURUSD"], "2017-01-01T22:00:00Z")

    train = ("models", "train", "--strategy", "neuro_mean_reversion", "--timeframe", "1h", "--set", "training.epochs=1", "--set",
             "training.labels.horizon=1", "--detach")  # fmt: skip
    job = house.cli_json(*train, "--symbol", "EURUSD")["job_id"]
    info = house.cli_json("jobs", "show", job)
    assert (info["inputs"]["data"], info["labels"]["data"]) == (digests["EURUSD"], "EURUSD_1h.csv cluster")

    house.cli_json("jobs", "wait", job)
    house.cli_json("jobs", "prune", "--older-than", "0s")
    assert len(house.cli_json("data", "list")["data"]) == 4  # imports are kept as models are
    assert house.cli_json("data", "rm", "EURUSD_1h", "SP500")["removed"] == 2
    assert {each["origin"] for each in house.cli_json("data", "list")["data"]} == {"built-in"}
    again = house.cli_json(*train, "--symbol", "EURUSD", "--dry-run")
    assert again["body"]["data"][0]["origin"] == "built-in"


def test_a_file_that_is_wrong_is_refused_and_a_check_says_all(house: House, tmp_path: Path) -> None:
    house.broker()
    house.worker("reader", kinds="data-import,data-check")
    bad = tmp_path / "GBPUSD_1h.csv"
    bad.write_text("time,open,high,low,close\n2017-01-02 00:00,1,1,1,1\n01.02.2017 01:00,1,1,1,1\n2017-01-02 02:00,0,1,1,1\n")
    done = house.cli("data", "import", str(bad), "--symbol", "GBPUSD", "--timeframe", "1h")
    assert done.returncode == 1
    assert "GBPUSD_1h.csv, row 3: '01.02.2017 01:00' is no date" in done.stderr
    assert "ktrdr data check GBPUSD_1h.csv shows all" in done.stderr
    assert "Traceback" not in done.stderr
    checked = house.cli_json("data", "check", str(bad), exit_code=1)["result"]
    assert [(problem["code"], problem["row"]) for problem in checked["problems"]] == [("no_date", 3), ("price", 4)]
    assert "row 3" not in house.cli("data", "list").stdout
    assert house.cli_json("data", "check", "SP500")["result"]["good"] is True
    done = house.cli("data", "import", str(bad), "--symbol", "GBPUSD", "--timeframe", "1h", "--timezone", "Mars/Olympus")
    assert (done.returncode, "There is no time zone 'Mars/Olympus'." in done.stderr) == (1, True)


def test_from_python_and_as_parquet(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables, texts = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow.csv")
    house.broker()
    house.worker("reader", kinds="data-import,data-check")
    sample = find_sample("EURUSD", "1h")
    assert sample is not None
    path = tmp_path / "any.parquet"
    tables.write_table(texts.read_csv(sample.path), path)
    with Client(house.address, data_dir=tmp_path) as client:
        job = client.import_data(path, "EURUSD", "1h")
        result = job.result(timeout=100)
        assert result.document.summary.bars == sample.bars
        assert result.digest == hashlib.sha256(sample.path.read_bytes()).hexdigest()  # the same canonical file
        assert job.artifact("bars", tmp_path / "EURUSD_1h.csv").read_bytes() == sample.path.read_bytes()
        assert [each.origin for each in client.datasets() if each.symbol == "EURUSD"] == ["data-dir", "cluster", "built-in"]
        assert client.check_data("EURUSD").result(timeout=100).document.good is True
        assert client.remove_data("EURUSD_1h") == 1


def test_without_a_worker_an_import_is_refused_in_so_many_words(house: House, tmp_path: Path) -> None:
    house.broker()
    file = tmp_path / "x.csv"
    file.write_text("x")
    done = house.cli("data", "import", str(file), "--symbol", "EURUSD", "--timeframe", "1h")
    assert done.returncode == 3
    assert "No workers available for data-import. Start a worker that offers data-import." in done.stderr


def test_bars_are_parsed_once_and_made_again_when_what_was_kept_is_damaged(house: House) -> None:
    house.broker()
    house.worker("reader", kinds="training")
    train = (
        "models",
        "train",
        "--strategy",
        "neuro_mean_reversion",
        "--symbol",
        "EURUSD",
        "--timeframe",
        "1h",
        "--set",
        "training.epochs=1",
    )
    kept = house.folder / "reader" / "kept" / "bars"
    digests = [house.cli_json(*train)["result"]["model_digest"]]
    (place,) = kept.iterdir()
    octets, written = (place / "prices.npy").read_bytes(), (place / "prices.npy").stat().st_ino
    digests.append(house.cli_json(*train)["result"]["model_digest"])
    assert (place / "prices.npy").stat().st_ino == written  # used, not made again
    (place / "prices.npy").write_bytes(octets[:-8] + bytes(8))
    digests.append(house.cli_json(*train)["result"]["model_digest"])
    assert (place / "prices.npy").read_bytes() == octets
    assert len(set(digests)) == 1
