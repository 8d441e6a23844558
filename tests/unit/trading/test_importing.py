"""Foreign files: what is read in which way, what is refused, and what is counted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_worker.trading.bars import DataError, load, stamp
from ktrdr_worker.trading.bars.converting import Converted, canonical, convert, inspect
from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.samples import find_sample
from ktrdr_zmq.strategy.formats import BarFormat

pytestmark = pytest.mark.science

SOURCES = Path(__file__).parent / "sources"
HEADER = "time,open,high,low,close,volume"


def run(tmp_path: Path, text: str | bytes, timeframe: str = "1h", symbol: str = "EURUSD", **form: Any) -> Converted:
    path = tmp_path / "x.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return convert(path, "x.csv", symbol, timeframe, BarFormat.read(form))


def table(*times: str, header: str = HEADER, rest: str = ",1,1,1,1,1") -> str:
    return "\n".join([header, *(f"{time}{rest}" for time in times)]) + "\n"


def opens(made: Converted) -> list[str]:
    return [stamp(moment) for moment in made.bars.opens]


@pytest.mark.parametrize(
    "name,timeframe,form",
    [("EURUSD", "1h", {"date_format": "%d.%m.%Y %H:%M:%S.%f"}), ("SP500", "1d", {"date_format": "%m/%d/%Y"})],
)
def test_the_samples_are_what_an_import_makes_of_their_sources(name: str, timeframe: str, form: dict[str, str]) -> None:
    made = convert(SOURCES / f"{name}_as_published.csv", "x", name, timeframe, BarFormat.read(form))
    sample = find_sample(name, timeframe)
    assert sample is not None
    assert made.text.splitlines() == sample.path.read_bytes().splitlines()[:201]
    assert made.ignored == (["adj close"] if name == "SP500" else [])


def test_each_sample_is_canonical() -> None:
    """An import of it changes nothing."""
    for name, timeframe in (("EURUSD", "1h"), ("SP500", "1d")):
        sample = find_sample(name, timeframe)
        assert sample is not None
        assert convert(sample.path, "x", name, timeframe, BarFormat()).text == sample.path.read_bytes()


# ---------------------------------------------------------------- times


@pytest.mark.parametrize(
    "times,form,read",
    [
        (["2017-01-02 00:00"], {}, ["2017-01-02T00:00:00Z"]),
        (["2017-01-02T03:00:00+02:00"], {"timezone": "Asia/Tokyo"}, ["2017-01-02T01:00:00Z"]),  # an offset says more than a zone
        (["2017-01-02 01:00", "2017-07-03 01:00"], {"timezone": "Europe/Berlin"}, ["2017-01-02T00:00:00Z", "2017-07-02T23:00:00Z"]),
        (["2017-01-02 01:00", "2017-07-03 01:00"], {"timezone": "Australia/Sydney"}, ["2017-01-01T14:00:00Z", "2017-07-02T15:00:00Z"]),
        (["2017-07-03 01:00"], {"timezone": "+02:00"}, ["2017-07-02T23:00:00Z"]),
        (["2017-07-03 01:00"], {"timezone": "-05:30"}, ["2017-07-03T06:30:00Z"]),
        (["02.01.2017 13:00"], {"date_format": "%d.%m.%Y %H:%M"}, ["2017-01-02T13:00:00Z"]),
        (["1/2/2017 13:00"], {"date_format": "%m/%d/%Y %H:%M"}, ["2017-01-02T13:00:00Z"]),
        (["02.01.2017 13:00 +0200"], {"date_format": "%d.%m.%Y %H:%M %z"}, ["2017-01-02T11:00:00Z"]),
        (["1483315200"], {"date_format": "unix"}, ["2017-01-02T00:00:00Z"]),
        (["1483315200000"], {"date_format": "unix-ms"}, ["2017-01-02T00:00:00Z"]),
        (["1483315200000000"], {"date_format": "unix-us"}, ["2017-01-02T00:00:00Z"]),
        (["2017-01-02 01:00"], {"bar_time": "close"}, ["2017-01-02T00:00:00Z"]),
        # The hour that closed when clocks went forward was an hour, though the wall clock shows two.
        (["2017-03-26 01:00", "2017-03-26 03:00"], {"timezone": "Europe/Berlin", "bar_time": "close"},
         ["2017-03-25T23:00:00Z", "2017-03-26T00:00:00Z"]),
    ],
)  # fmt: skip
def test_times(tmp_path: Path, times: list[str], form: dict[str, str], read: list[str]) -> None:
    assert opens(run(tmp_path, table(*times), **form)) == read


def test_a_day_that_closes_goes_back_by_the_calendar(tmp_path: Path) -> None:
    """The day before 2017-03-27 had 23 hours in Berlin."""
    made = run(tmp_path, table("2017-03-27"), "1d", timezone="Europe/Berlin", bar_time="close")
    assert opens(made) == ["2017-03-25T23:00:00Z"]


def test_what_was_done_to_times_is_counted(tmp_path: Path) -> None:
    made = run(tmp_path, table("2017-01-02 01:00", "2017-01-02T04:00:00+02:00"), timezone="Europe/Berlin", bar_time="close")
    assert made.changed == {
        "rows_read": 2, "rows_written": 2, "duplicates_dropped": 0, "rows_reversed": 0, "times_converted": 1, "times_shifted": 2,
    }  # fmt: skip


# ---------------------------------------------------------------- columns, signs, numbers


def test_a_file_as_metatrader_writes_it(tmp_path: Path) -> None:
    text = "2017.01.02\t00:00\t1.1\t1.3\t1.0\t1.2\t5\n2017.01.02\t01:00\t1.2\t1.3\t1.0\t1.1\t6\n"
    columns = {"time": "#1+#2", "open": "#3", "high": "#4", "low": "#5", "close": "#6", "volume": "#7"}
    made = run(tmp_path, text, columns=columns, separator="\t", date_format="%Y.%m.%d %H:%M")
    assert made.text.decode() == (
        "timestamp,open,high,low,close,volume\n2017-01-02T00:00:00Z,1.1,1.3,1,1.2,5\n2017-01-02T01:00:00Z,1.2,1.3,1,1.1,6\n"
    )


def test_columns_have_other_names_in_any_case(tmp_path: Path) -> None:
    text = "Date;O;H;L;C;Adj Close;Ticks\n2017-01-02 00:00;1;4;1;3;9;7\n"
    columns = {"time": "date", "open": "o", "high": "H", "low": "l", "close": "C", "volume": "Ticks"}
    made = run(tmp_path, text, columns=columns, separator=";")
    assert made.text.splitlines()[1] == b"2017-01-02T00:00:00Z,1,4,1,3,7"
    assert made.ignored == ["adj close"]


@pytest.mark.parametrize(
    "written,form,read",
    [
        ("1,5", {"decimal": ",", "separator": ";"}, 1.5),
        ("1.234,5", {"decimal": ",", "thousands": ".", "separator": ";"}, 1234.5),
        ("1,234.5", {"thousands": ",", "separator": ";"}, 1234.5),
        ("1'234'567", {"thousands": "'", "separator": ";"}, 1234567.0),
        ("1234.5", {"thousands": ",", "separator": ";"}, 1234.5),
        ("1.5E+3", {}, 1500.0),
    ],
)
def test_numbers(tmp_path: Path, written: str, form: dict[str, str], read: float) -> None:
    separator = form.get("separator", ",")
    row = separator.join(["2017-01-02 00:00", *[written] * 5])
    made = run(tmp_path, HEADER.replace(",", separator) + "\n" + row + "\n", **form)
    assert made.bars.close.tolist() == [read]


def test_without_volume_there_is_no_column_of_it(tmp_path: Path) -> None:
    made = run(tmp_path, table("2017-01-02 00:00", header="time,open,high,low,close", rest=",1,1,1,1"))
    assert made.text.splitlines()[0] == b"timestamp,open,high,low,close"
    assert made.warnings == ["The file has no volume; indicators that need it cannot be used."]


@pytest.mark.parametrize("encoding,ending", [("utf-8-sig", "\n"), ("utf-8", "\r\n"), ("utf-8-sig", "\r\n"), ("utf-8", "")])
def test_marks_and_line_ends_make_no_difference(tmp_path: Path, encoding: str, ending: str) -> None:
    text = (HEADER + "\n2017-01-02 00:00,1,1,1,1,1").replace("\n", ending or "\n") + ending
    assert opens(run(tmp_path, text.encode(encoding))) == ["2017-01-02T00:00:00Z"]
    path = tmp_path / "x.csv"
    assert len(load(path, "x", "EURUSD", "1h", "1h").bars.opens) == 1


# ---------------------------------------------------------------- doubles and order

DOUBLED = HEADER + "\n2017-01-02 00:00,1,1,1,1,1\n2017-01-02 00:00,2,2,2,2,2\n2017-01-02 01:00,3,3,3,3,3\n2017-01-02 01:00,3,3,3,3,3\n"


@pytest.mark.parametrize("duplicates,closes", [("first", [1.0, 3.0]), ("last", [2.0, 3.0])])
def test_doubles_are_dropped_as_was_said_and_counted(tmp_path: Path, duplicates: str, closes: list[float]) -> None:
    made = run(tmp_path, DOUBLED, duplicates=duplicates)
    assert made.bars.close.tolist() == closes
    assert (made.changed["rows_read"], made.changed["rows_written"], made.changed["duplicates_dropped"]) == (4, 2, 2)


def test_only_rows_that_say_the_same_are_dropped_as_identical(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 3: the time 2017-01-02T00:00:00Z is there twice"):
        run(tmp_path, DOUBLED, duplicates="identical")
    rows = DOUBLED.splitlines()
    made = run(tmp_path, "\n".join([rows[0], rows[1], *rows[3:]]), duplicates="identical")
    assert made.bars.close.tolist() == [1.0, 3.0]
    assert made.changed["duplicates_dropped"] == 1


def test_a_file_that_runs_backwards_is_turned_round_as_a_whole(tmp_path: Path) -> None:
    made = run(tmp_path, table("2017-01-02 02:00", "2017-01-02 01:00", "2017-01-02 00:00"))
    assert opens(made) == ["2017-01-02T00:00:00Z", "2017-01-02T01:00:00Z", "2017-01-02T02:00:00Z"]
    assert made.changed["rows_reversed"] == 3
    with pytest.raises(DataError, match="lies before the row above"):
        run(tmp_path, table("2017-01-02 02:00", "2017-01-02 00:00", "2017-01-02 01:00"))


# ---------------------------------------------------------------- what is refused

BERLIN = {"timezone": "Europe/Berlin"}
SYDNEY = {"timezone": "Australia/Sydney"}
ZIPPED, SHEET = b"\x1f\x8b\x08\x00abc", b"PK\x03\x04abc"

REFUSED: list[tuple[str | bytes, dict[str, Any], str, str]] = [
    (table("2017-10-29 02:30"), BERLIN, "row 2: '2017-10-29 02:30' is there twice in Europe/Berlin: clocks went back.", "+02:00"),
    (table("2017-03-26 02:30"), BERLIN, "row 2: '2017-03-26 02:30' is not there in Europe/Berlin: clocks went forward.", "UTC"),
    (table("2017-04-02 02:15"), SYDNEY, "row 2: '2017-04-02 02:15' is there twice in Australia/Sydney", "offsets"),
    (table("2017-10-01 02:15"), SYDNEY, "row 2: '2017-10-01 02:15' is not there in Australia/Sydney", "offsets"),
    (table("01.02.2017 10:00"), {}, "row 2: '01.02.2017 10:00' is no date; write it as 2017-06-30T13:00:00Z", "--date-format"),
    (table("2017-01-02 00:00"), {"date_format": "%d.%m.%Y"}, "row 2: '2017-01-02 00:00' is no date of the form %d.%m.%Y.", ""),
    (table("31.12.1850"), {"date_format": "%d.%m.%Y"}, "row 2: '31.12.1850' lies outside the years 1900 to 2199.", ""),
    (table("99999999999999"), {"date_format": "unix"}, "row 2: '99999999999999' is no date of the form unix.", ""),
    (table("1483315200.5"), {"date_format": "unix"}, "row 2: '1483315200.5' is no date of the form unix.", ""),
    (table("02.01.2017"), {"date_format": "%Y-%Q"}, "The date format '%Y-%Q' cannot be used", ""),
    (table("2017-01-02 00:00"), {"timezone": "Mars/Olympus"}, "There is no time zone 'Mars/Olympus'.", "Europe/Berlin"),
    (table("2017-01-02 00:59:59"), {}, "row 2: no bar of 1h opens at 2017-01-02T00:59:59Z.", "--bar-time close"),
    (table("2017-01-02 00:00:00.5"), {}, "row 2: '2017-01-02 00:00:00.5' is no date", ""),
    (table("2017-01-02 00:00", rest=";1,5;1;1;1;1", header=HEADER.replace(",", ";")), {"separator": ";"},
     "row 2: the open '1,5' is not a price above 0.", ""),
    (table("2017-01-02 00:00", rest=';"1.5";1;1;1;1', header=HEADER.replace(",", ";")), {"separator": ";", "decimal": ","},
     "row 2: the open '1.5' is not a price above 0.", ""),
    (table("2017-01-02 00:00", rest=";1.5;2;1;1;1", header=HEADER.replace(",", ";")),
     {"separator": ";", "decimal": ",", "thousands": "."}, "row 2: the open '1.5' is not a price above 0.", ""),
    (table("2017-01-02 00:00"), {"separator": ";"}, "x.csv lacks the columns: timestamp, open, high, low, close.", "--separator ','"),
    (table("2017-01-02 00:00"), {"columns": {"open": "Eröffnung"}}, "x.csv lacks the columns: eröffnung.", ""),
    (table("2017-01-02 00:00"), {"columns": {"volume": "ticks"}}, "x.csv lacks the columns: ticks.", ""),
    (table("2017-01-02 00:00", header="time,open,high,low,close,OPEN"), {}, "x.csv has the column open twice.", ""),
    (table("2017-01-02 00:00", rest=",1,1,1,1"), {}, "row 2: the volume '' is not a number of 0 or more.", ""),
    (table("2017-01-02 00:00", rest=",1,1,1,1,1,1"), {}, "x.csv, row 2: it has 7 fields, where 6 were expected.", ""),
    (table("2017-01-02 00:00", rest=";1;1;1;1;1", header=HEADER.replace(",", ";")), {}, "x.csv lacks the columns: ", "--separator ';'"),
    (table("2017-01-02 00:00", rest=";1,5;1,6;1,4;1,5;1", header=HEADER.replace(",", ";")), {},
     "x.csv, row 2: it has 5 fields, where 1 were expected.", "--separator ';', and --decimal ','"),
    (table("2017-01-02 00:00", rest="\t1\t1\t1\t1\t1", header=HEADER.replace(",", "\t")), {}, "x.csv lacks", "--separator tab"),
    (table("2017-01-02 00:00"), {"separator": ";", "columns": {"open": "o"}}, "x.csv lacks the columns", "--separator ','"),
    (table("2017-01-02 00:00") + '2017-01-02 01:00,"1,1,1,1,1\n', {}, "x.csv is no regular CSV: ", ""),
    (table("2017-01-02 00:00") + "\n", {}, "row 3: the row is empty.", ""),
    (table("2017-01-02 00:00", rest=",1_000,1000,1,1,1"), {}, "row 2: the open '1_000' is not a price above 0.", ""),
    (table("2017-01-02 00:00", rest=",0x10,99,1,1,1"), {}, "row 2: the open '0x10' is not a price above 0.", ""),
    (table("2017-01-02 00:00", rest=",1,1,1,NA,1"), {}, "row 2: the close 'NA' is not a price above 0.", ""),
    (table("2017-01-02 00:00", rest=",-1,1,-1,1,1"), {}, "row 2: the open '-1' is not a price above 0.", ""),
    (table("2017-01-02 00:00", rest=",1,0.5,0.5,1,1"), {}, "row 2: the high is below its open or close.", ""),
    (table("2017-01-02 00:00", rest=",1,2,1.5,1,1"), {}, "row 2: the low is above its open or close.", ""),
    (table("2017-01-02 00:00", "2017-01-02 00:15"), {}, "row 3: 2017-01-02T00:15:00Z follows too soon", "right timeframe"),
    (ZIPPED, {}, "x.csv is compressed by gzip; unpack it first.", ""),
    (SHEET, {}, "x.csv is a ZIP archive or an Excel workbook", ""),
    (table("2017-01-02").encode("utf-16"), {}, "x.csv is no UTF-8 text but UTF-16", ""),
    (table("2017-01-02").encode() + b"\0", {}, "x.csv is no text: it has a zero octet at ", ""),
    (HEADER.encode() + b"\n2017-01-02 00:00,1,1,1,1,\xe4\n", {}, "x.csv is no UTF-8 text", ""),
    ("", {}, "x.csv is empty.", ""),
    (HEADER + "\n", {}, "x.csv has a header and no rows.", ""),
    (b"PAR1" + bytes(40), {}, "x.csv is no readable Parquet file", ""),
]  # fmt: skip


@pytest.mark.parametrize("text,form,said,hint", REFUSED)
def test_what_cannot_be_read_in_one_way_only_is_refused(
    tmp_path: Path, text: str | bytes, form: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        run(tmp_path, text, **form)
    assert said in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "form,said",
    [
        ({"columns": {"price": "x"}}, "There is no column 'price' to fill"),
        ({"columns": {"open": "A+B"}}, "only the time may be made of two"),
        ({"columns": {"open": " "}}, "A column is named by its name"),
        ({"columns": {"time": "#1", "open": "#2"}}, "Where columns are told by their place, all are"),
        (
            {"columns": {f: f"#{n}" for n, f in enumerate(("time", "open", "high", "low"), 1)} | {"close": "C"}},
            "told by their place, all are",
        ),
        ({"separator": ""}, "'' cannot be the separator"),
        ({"separator": ";;"}, "';;' cannot be the separator"),
        ({"decimal": ";"}, "';' cannot be the decimal sign"),
        ({"thousands": "_"}, "'_' cannot be the sign between thousands"),
        ({"decimal": ",", "thousands": ","}, "',' cannot stand before decimals and between thousands"),
        ({"duplicates": "average"}, "'average' is none of the choices for duplicates"),
        ({"bar_time": "middle"}, "'middle' is none of the choices for bar time"),
        ({"date_format": "dd.mm.yyyy"}, "'dd.mm.yyyy' is no date format"),
        ({"date_format": "%H:%M"}, "'%H:%M' is no date format"),
        ({"timezone": "GMT +2"}, "'GMT +2' is no time zone"),
        ({"zone": "UTC"}, "This does not say how a file of bars is written"),
        ({"columns": "time"}, "This does not say how a file of bars is written"),
    ],
)
def test_what_makes_no_sense_about_a_file(form: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        BarFormat.read(form)
    assert said in caught.value.message


def test_a_check_finds_every_kind_of_problem_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = [
        "2017-01-02 00:00,1,1,1,1,1", "2017-01-02 00:00,1,1,1,1,1", "yesterday,1,1,1,1,1", "2017-01-02 02:00,-1,1,1,1,1",
        "2017-01-02 03:00,1,1,1,1,-1", "2017-01-02 04:00,2,1,1,1,1", "2017-01-02 05:00,1,3,2,1,1", "2017-01-02 05:30,1,1,1,1,1",
        "2017-01-02 06:45,1,1,1,1,1", "2017-01-02 03:00,1,1,1,1,1", "", "2017-01-02 09:07,nan,1,1,1,1",
    ]  # fmt: skip
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    found = inspect(path, "x.csv", "EURUSD", "1h", BarFormat())
    assert [(each.code, each.row, each.often) for each in found.problems] == [
        ("duplicate", 3, 1), ("no_date", 4, 1), ("price", 5, 2), ("volume", 6, 1), ("high", 7, 1), ("low", 8, 1), ("too_soon", 9, 1),
        ("order", 11, 1), ("empty_row", 12, 1), ("off_grid", 13, 1),
    ]  # fmt: skip
    assert found.bars is None
    with pytest.raises(DataError) as caught:
        load(path, "x.csv", "EURUSD", "1h", "1h")
    assert "row 3: the time 2017-01-02T00:00:00Z is there twice." in caught.value.message
    assert "ktrdr data check x.csv shows all" in caught.value.hint


def test_every_kind_of_problem_is_documented(tmp_path: Path) -> None:
    told = {"empty_row", "duplicate", "order"}
    for text, form, _, _ in REFUSED:
        (tmp_path / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        told |= {each.code for each in inspect(tmp_path / "x.csv", "x", "EURUSD", "1h", BarFormat.read(form)).problems}
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    section = page.partition("## What is wrong with a file")[2].partition("What can be wrong with bars")[0]
    assert {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")} == told | {"code"}


def test_a_check_of_a_file_that_is_none_names_that(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(ZIPPED)
    (only,) = inspect(path, "x.csv", "EURUSD", "1h", BarFormat()).problems
    assert (only.code, only.row) == ("file", 0)


# ---------------------------------------------------------------- Parquet


def parquet(path: Path, **columns: Any) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def prices(count: int, **changes: Any) -> dict[str, Any]:
    return {**{name: np.ones(count) for name in ("open", "high", "low", "close", "volume")}, **changes}


def hours(count: int, unit: str = "us", zone: str | None = None) -> Any:
    pa = pytest.importorskip("pyarrow")
    times = np.datetime64("2017-01-02T00:00") + np.arange(count) * np.timedelta64(1, "h")
    return pa.array(times.astype(f"datetime64[{unit}]"), pa.timestamp(unit, tz=zone))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_parquet_with_typed_columns(tmp_path: Path, unit: str, zone: str | None) -> None:
    path = parquet(tmp_path / "EURUSD_1h.parquet", timestamp=hours(3, unit, zone), **prices(3, extra=np.ones(3)))
    bars = load(path, path.name, "EURUSD", "1h", "1h").bars
    assert [stamp(moment) for moment in bars.opens] == ["2017-01-02T00:00:00Z", "2017-01-02T01:00:00Z", "2017-01-02T02:00:00Z"]


def test_parquet_of_other_types(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    date = parquet(tmp_path / "a.parquet", date=pa.array([17168], pa.date32()), **prices(1, open=pa.array([1], pa.int32())))
    assert stamp(load(date, "a", "SP500", "1d", "1d").bars.opens[0]) == "2017-01-02T00:00:00Z"
    texts = parquet(tmp_path / "b.parquet", time=["2017-01-02 00:00"], **prices(1, close=pa.array(["1.0"]).dictionary_encode()))
    assert load(texts, "b", "EURUSD", "1h", "1h").bars.close.tolist() == [1.0]
    epoch = parquet(tmp_path / "c.parquet", time=np.array([1_483_315_200_000]), **prices(1))
    assert opens(convert(epoch, "c", "EURUSD", "1h", BarFormat.read({"date_format": "unix-ms"}))) == ["2017-01-02T00:00:00Z"]
    naive = convert(
        parquet(tmp_path / "d.parquet", time=hours(1), **prices(1)), "d", "EURUSD", "1h", BarFormat.read({"timezone": "Asia/Tokyo"})
    )
    assert opens(naive) == ["2017-01-01T15:00:00Z"]


@pytest.mark.parametrize(
    "columns,said",
    [
        ({"open": np.array([1.0, np.nan, 1.0])}, "row 2: the open nan is not a price above 0."),
        ({"open": [1.0, None, 1.0]}, "row 2: the open nan is not a price above 0."),
        ({"close": np.array([1.0, 1.0, 0.0])}, "row 3: the close 0 is not a price above 0."),
        ({"open": [True, True, True]}, "the column open has a type that cannot be a bar's open"),
        ({"open": ["1", "x", "1"]}, "row 2: the open 'x' is not a price above 0."),
        ({"OPEN": np.ones(3)}, "has the column open twice"),
        ({"timestamp": np.arange(3)}, "The times are numbers."),
        ({"timestamp": ["2017-01-02T00:00:00Z", None, "2017-01-02T02:00:00Z"]}, "row 2: '' is no date"),
    ],
)
def test_parquet_is_read_as_strictly(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    path = parquet(tmp_path / "x.parquet", **{"timestamp": hours(3), **prices(3), **columns})
    with pytest.raises(DataError) as caught:
        load(path, "x.parquet", "EURUSD", "1h", "1h")
    assert said in caught.value.message


def test_a_parquet_file_without_columns_or_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks the columns: timestamp, open, high, low, close"):
        load(parquet(tmp_path / "x.parquet", a=np.ones(3)), "x", "EURUSD", "1h", "1h")
    with pytest.raises(DataError, match="has no rows"):
        load(parquet(tmp_path / "x.parquet", timestamp=hours(0), **prices(0)), "x", "EURUSD", "1h", "1h")


def test_without_pyarrow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + bytes(40))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="pyarrow is not installed there") as caught:
        load(path, "x.parquet", "EURUSD", "1h", "1h")
    assert "pip install 'ktrdr-zmq[parquet]'" in caught.value.hint


# ---------------------------------------------------------------- round trips

NUMBERS = st.floats(min_value=1e-9, max_value=1e15, allow_nan=False)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.floats(0, 1e15)), min_size=1, max_size=20))
def test_the_canonical_text_gives_the_same_bits(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]]) -> None:
    path = tmp_path_factory.getbasetemp() / "bits.csv"
    lines = [
        f"2017-01-02T{hour:02}:00:00Z,{a!r},{max(a, b, c, d)!r},{min(a, b, c, d)!r},{d!r},{e!r}"
        for hour, (a, b, c, d, e) in enumerate(rows)
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    bars = load(path, "x", "EURUSD", "1h", "1h").bars
    assert bars.open.tolist() == [row[0] for row in rows]  # exact, as Python reads them
    assert bars.volume.tolist() == [row[4] for row in rows]
    path.write_bytes(canonical(bars))
    again = load(path, "x", "EURUSD", "1h", "1h").bars
    assert all((left == right).all() for left, right in zip(bars[2:], again[2:], strict=True))


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_the_slow_way_reads_the_same_bits_as_the_fast_one(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.getbasetemp() / "slow.csv"
    lines = [f"2017-01-02T{hour:02}:00:00Z;{value!r};{value!r};{value!r};{value!r};1" for hour, value in enumerate(values)]
    path.write_text("\n".join([HEADER.replace(",", ";"), *lines]) + "\n")
    assert convert(path, "x", "EURUSD", "1h", BarFormat.read({"separator": ";"})).bars.close.tolist() == values
