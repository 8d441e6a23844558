"""Which file a job gets: one's own before the cluster's before the built-in ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr_zmq import recipes
from ktrdr_zmq.datasets import BARS, Dataset, NoBars, built_in, find, importing, named, of_cluster, own, to_check
from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.views import ArtifactInfo
from tests.unit.cli.fake import job

DIGEST = "ab" * 32


def imported(number: int, name: str, digest: str = DIGEST, artifact: str = BARS) -> object:
    return job(number, kind="data-import", name=name, artifacts=[ArtifactInfo(artifact, digest, 100, "text/csv")])


def known(*names: str) -> list[Dataset]:
    """Imports of these names, the newest named last."""
    return of_cluster([imported(n, name) for n, name in reversed(list(enumerate(names, 1)))])  # type: ignore[misc]


def test_ones_own_come_first_then_the_clusters_then_the_built_in_ones(tmp_path: Path) -> None:
    there = known("EURUSD_1h", "EURUSD_4h")
    assert find("EURUSD", ["1d"], None).origin == "built-in"
    assert (find("EURUSD", ["1d"], None, there).origin, find("EURUSD", ["1d"], None, there).timeframe) == ("cluster", "4h")
    assert find("EURUSD", ["1d"], tmp_path, there).origin == "cluster"
    (tmp_path / "EURUSD_1h.csv").write_text("x")
    found = find("EURUSD", ["1d"], tmp_path, there)
    assert (found.origin, found.timeframe, found.source) == ("data-dir", "1h", tmp_path / "EURUSD_1h.csv")


def test_all_timeframes_are_made_of_one_file() -> None:
    there = known("EURUSD_5m", "EURUSD_1d")
    assert find("EURUSD", ["1d"], None, there).timeframe == "1d"
    assert find("EURUSD", ["15m", "1d"], None, there).timeframe == "5m"


def test_what_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(NoBars, match=r"no bars for GBPUSD from which 1h and 1d can be made among the imported ones or among the built-in"):
        find("GBPUSD", ["1h", "1d"], None)
    with pytest.raises(NoBars, match=f"in {tmp_path}, among the imported ones or"):
        find("GBPUSD", ["1h"], tmp_path)
    with pytest.raises(NoBars) as caught:
        find("EURUSD", ["1m", "1h"], None)
    assert "ktrdr data import FILE --symbol EURUSD --timeframe 1m" in caught.value.hint


def test_files_of_ones_own_are_csv_or_parquet(tmp_path: Path) -> None:
    for name in ("GBPUSD_4h.csv", "BRK.B_1d.parquet", "ODD_7x.csv", "notes.txt", "A_1h.csv.gz", "a b_1h.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "FOLDER_1h.csv").mkdir()
    assert [each.filename for each in own(tmp_path)] == ["BRK.B_1d.parquet", "GBPUSD_4h.csv"]
    (tmp_path / "GBPUSD_4h.parquet").write_text("x")
    with pytest.raises(UsageError, match=r"GBPUSD_4h twice: GBPUSD_4h.csv and GBPUSD_4h.parquet"):
        own(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        own(tmp_path / "nowhere")


def test_the_newest_import_of_a_name_is_used() -> None:
    there = known("EURUSD_1h", "GBPUSD_1h", "EURUSD_1h")
    assert [(each.name, each.version, each.current) for each in there] == [
        ("EURUSD_1h", 2, True), ("GBPUSD_1h", 1, True), ("EURUSD_1h", 1, False)
    ]  # fmt: skip
    assert find("EURUSD", ["1h"], None, there).version == 2


def test_jobs_that_left_no_bars_are_no_sets_of_them() -> None:
    others = [imported(1, "EURUSD_1h", artifact="log"), imported(2, "mine")]
    assert of_cluster(others) == []  # type: ignore[arg-type]


def test_sets_of_bars_are_named_in_four_ways() -> None:
    there = known("EURUSD_1h", "EURUSD_1h", "GBPUSD_5m")
    assert [each.version for each in named("EURUSD_1h", there)] == [2, 1]
    assert [each.version for each in named("EURUSD_1h@1", there)] == [1]
    assert [each.name for each in named("GBPUSD", there)] == ["GBPUSD_5m"]
    assert [each.version for each in named(f"{2:032x}", there)] == [2]
    for wrong in ("EURUSD_4h", "EURUSD_1h@3", "AUDUSD"):
        with pytest.raises(NoBars):
            named(wrong, there)
    with pytest.raises(UsageError, match="a version is a whole number"):
        named("EURUSD_1h@new", there)


def test_what_an_import_submits(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text("x")
    request = importing(file, "EURUSD", "1h", {"date_format": "%d.%m.%Y", "separator": ";"}, queue=True)
    assert (request.kind, request.name, request.device, request.queue) == ("data-import", "EURUSD_1h", "cpu", True)
    assert request.inputs == {"data": file}
    assert request.body["format"]["separator"] == ";"
    for args in ((tmp_path / "none.csv", "EURUSD", "1h"), (file, "a/b", "1h"), (file, "EURUSD", "7x")):
        with pytest.raises(UsageError):
            importing(*args)


def test_a_file_to_check_says_by_its_name_what_it_has(tmp_path: Path) -> None:
    there = [*known("EURUSD_1h"), *built_in()]
    file, other = tmp_path / "GBPUSD_15m.csv", tmp_path / "bars.csv"
    file.write_text("x")
    other.write_text("x")
    assert to_check(str(file), "", "", there).name == "GBPUSD_15m"
    assert to_check(str(file), "EURGBP", "5m", there).name == "EURGBP_5m"
    assert to_check(str(other), "", "5m", there).name == "bars_5m"
    assert to_check("EURUSD", "", "", there).inputs == {"data": DIGEST}
    assert to_check("SP500", "", "1d", there).body["filename"] == "SP500_1d.csv"
    with pytest.raises(UsageError, match=r"bars.csv does not say what bars it has"):
        to_check(str(other), "", "", there)
    with pytest.raises(UsageError, match="There is no file"):
        to_check(str(tmp_path / "none_1h.csv"), "", "", there)
    with pytest.raises(NoBars):
        to_check("GBPUSD", "", "", there)


def test_a_job_says_where_its_bars_come_from() -> None:
    def labels(**options: object) -> dict[str, str]:
        return recipes.training("neuro_mean_reversion", "EURUSD", "1h", **options).labels  # type: ignore[arg-type]

    assert labels() == {"data": "EURUSD_1h.csv built-in"}
    request = recipes.training("neuro_mean_reversion", "EURUSD", "1h", known=known("EURUSD_1h"), labels={"team": "fx"})
    assert request.labels == {"data": "EURUSD_1h.csv cluster", "team": "fx"}
    assert request.inputs == {"data": DIGEST}
    assert request.body["data"][0]["origin"] == "cluster"
    assert labels(labels={"data": "mine"}) == {"data": "mine"}
