"""The strict reader, sessions and coarser bars."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from ktrdr_worker.trading.bars import DataError, Loaded, load, stamp
from ktrdr_zmq.samples import find_sample, list_samples

HEADER = "timestamp,open,high,low,close,volume"
ROWS = [
    "2017-01-02T00:00:00Z,1.0,1.2,0.9,1.1,5",
    "2017-01-02T01:00:00Z,1.1,1.3,1.0,1.2,6",
    "2017-01-02T02:00:00Z,1.2,1.4,1.1,1.3,7",
]


def read(tmp_path: Path, text: str | bytes, timeframe: str = "1h", symbol: str = "EURUSD") -> Loaded:
    path = tmp_path / "x"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path, "EURUSD_1h.csv", symbol, "1h", timeframe)


def table(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


def test_a_file_becomes_bars(tmp_path: Path) -> None:
    bars = read(tmp_path, table(*ROWS)).bars
    assert [stamp(t) for t in bars.opens] == [row.partition(",")[0] for row in ROWS]
    assert bars.close.tolist() == [1.1, 1.2, 1.3]
    assert (bars.closes - bars.opens).tolist() == [3_600_000_000_000] * 3


def test_times_without_offset_are_utc_and_others_are_converted(tmp_path: Path) -> None:
    bars = read(
        tmp_path, table("2017-01-02 00:00,1,1,1,1,0", "2017-01-02T03:00:00+02:00,1,1,1,1,0", header=HEADER.replace("timestamp", "Date"))
    ).bars
    assert [stamp(t) for t in bars.opens] == ["2017-01-02T00:00:00Z", "2017-01-02T01:00:00Z"]


def test_volume_may_be_absent(tmp_path: Path) -> None:
    assert read(tmp_path, table("2017-01-02T00:00:00Z,1,1,1,1", header=HEADER.removesuffix(",volume"))).bars.volume.tolist() == [0.0]


@pytest.mark.parametrize(
    "text,said",
    [
        ("", "EURUSD_1h.csv is empty"),
        (HEADER + "\n", "a header and no rows"),
        (b"\xff\xfe\x00", "is no UTF-8 text"),
        (table(*ROWS, header="a,b,c,d,e,f"), "lacks the columns: timestamp, open, high, low, close"),
        (table(*ROWS, header="time,open,high,low,price,volume"), "lacks the columns: close. It has"),
        (table(*ROWS, header="time,open,open,low,close,volume"), "column open twice"),
        (table(ROWS[0], "02.01.2017 01:00,1,1,1,1,1"), "row 3: '02.01.2017 01:00' is no date"),
        (table(ROWS[0], "2017-13-01T01:00:00Z,1,1,1,1,1"), "row 3: '2017-13-01T01:00:00Z' is no date"),
        (table(ROWS[0], ROWS[0]), "row 3: the time 2017-01-02T00:00:00Z is there twice"),
        (table(ROWS[1], ROWS[0]), "row 3: the time 2017-01-02T00:00:00Z lies before the row above"),
        (table(ROWS[0], "2017-01-02T00:30:00Z,1,1,1,1,1"), "row 3: 2017-01-02T00:30:00Z follows too soon"),
        (table("2017-01-02T00:00:00Z,1.0,1.05,0.9,1.1,5"), "row 2: the high is below its open or close"),
        (table("2017-01-02T00:00:00Z,1.0,1.2,1.05,1.1,5"), "row 2: the low is above its open or close"),
        (table(ROWS[0], "2017-01-02T01:00:00Z,,1,1,1,1"), "row 3: the open '' is not a price above 0"),
        (table("2017-01-02T00:00:00Z,1,1,1,nan,1"), "row 2: the close 'nan' is not a price above 0"),
        (table("2017-01-02T00:00:00Z,1,inf,1,1,1"), "row 2: the high 'inf' is not a price above 0"),
        (table("2017-01-02T00:00:00Z,0,1,0,1,1"), "row 2: the open '0' is not a price above 0"),
        (table('2017-01-02T00:00:00Z,"1,1",2,1,1,1'), "row 2: the open '1,1' is not a price above 0"),
        (table("2017-01-02T00:00:00Z,1,1,1,1,-1"), "row 2: the volume '-1' is not a number of 0 or more"),
        (table(ROWS[0], "", ROWS[1]), "row 3: the row is empty"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert said in caught.value.message


def test_timeframes_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Bars of 30m cannot be made from bars of 1h"):
        read(tmp_path, table(*ROWS), "30m")
    with pytest.raises(DataError, match="too few bars for a single complete one of 1d"):
        read(tmp_path, table(*ROWS), "1d")


def test_a_gap_is_counted_and_not_filled(tmp_path: Path) -> None:
    loaded = read(tmp_path, table(ROWS[0], ROWS[2]))
    assert (loaded.gaps, len(loaded.bars.opens)) == (1, 2)


def test_the_samples_are_clean() -> None:
    for sample in list_samples():
        bars = load(sample.path, sample.path.name, sample.symbol, sample.timeframe, sample.timeframe).bars
        assert len(bars.opens) == sample.bars
        assert (stamp(bars.opens[0])[:10], stamp(bars.opens[-1])[:10]) == (sample.first, sample.last)
        assert sample.licence.is_file()


def test_a_forex_day_ends_at_five_in_new_york_and_sunday_stubs_vanish() -> None:
    """Against a second way: a dictionary filled bar by bar with the standard library's zones."""
    sample = find_sample("EURUSD", "1d")
    assert sample is not None
    source = load(sample.path, "x", "EURUSD", "1h", "1h").bars
    days: dict[dt.date, list[int]] = {}
    for index, moment in enumerate(source.opens):
        local = dt.datetime.fromtimestamp(moment // 1_000_000_000, dt.UTC).astimezone(ZoneInfo("America/New_York"))
        days.setdefault((local.replace(tzinfo=None) + dt.timedelta(hours=7)).date(), []).append(index)
    daily = load(sample.path, "x", "EURUSD", "1h", "1d").bars
    assert {day.weekday() for day in days} == {0, 1, 2, 3, 4}
    assert len(daily.opens) == len(days)
    for number, members in enumerate(days.values()):
        assert daily.open[number] == source.open[members[0]]
        assert daily.close[number] == source.close[members[-1]]
        assert daily.high[number] == source.high[members].max()
        assert daily.low[number] == source.low[members].min()
        assert daily.volume[number] == pytest.approx(source.volume[members].sum())
        assert daily.closes[number] >= source.closes[members[-1]]
    hours = {stamp(moment)[11:] for moment in daily.opens}
    assert hours == {"22:00:00Z", "21:00:00Z"}  # winter and summer


@pytest.mark.parametrize("timeframe,count", [("4h", 1557), ("1d", 260), ("1w", 52)])
def test_coarser_bars_follow_each_other_without_overlap(timeframe: str, count: int) -> None:
    sample = find_sample("EURUSD", timeframe)
    assert sample is not None
    bars = load(sample.path, "x", "EURUSD", "1h", timeframe).bars
    assert len(bars.opens) == count
    assert (bars.opens[1:] >= bars.closes[:-1]).all()
    assert (bars.closes > bars.opens).all()
    assert (np.diff(bars.sessions) >= 0).all()


def test_a_day_that_the_file_covers_in_part_is_left_out_and_said(tmp_path: Path) -> None:
    hours = [dt.datetime(2017, 1, 2, 22, tzinfo=dt.UTC) + dt.timedelta(hours=n) for n in range(-3, 30)]
    loaded = read(tmp_path, table(*(f"{hour.isoformat()},1,1,1,1,1" for hour in hours)), "1d")
    assert [stamp(t) for t in loaded.bars.opens] == ["2017-01-02T22:00:00Z"]
    assert len(loaded.warnings) == 2
    assert all("only a part of it" in line for line in loaded.warnings)


def prices(*moments: str) -> str:
    return table(*(f"{moment},1,1,1,1,1" for moment in moments))


def hourly(first: dt.datetime, count: int) -> str:
    """So many hours, the n-th with the price n + 1."""
    return table(*(f"{(first + dt.timedelta(hours=n)).isoformat()},{n + 1},{n + 1},{n + 1},{n + 1},1" for n in range(count)))


@pytest.mark.parametrize(
    "timeframe,moments,gaps",
    [
        ("1d", ("2017-01-06", "2017-01-09"), 0),  # a weekend
        ("1d", ("2017-01-06", "2017-01-10"), 1),  # holidays are not known
        ("1d", ("2017-01-06", "2017-01-11"), 1),
        ("1w", ("2017-01-02", "2017-01-09", "2017-01-23"), 1),
        ("4h", ("2017-01-06T16:00", "2017-01-06T20:00", "2017-01-09T16:00"), 0),
        ("4h", ("2017-01-05T16:00", "2017-01-06T00:00"), 0),  # after regular hours
        ("30m", ("2017-01-05T16:00", "2017-01-05T17:00"), 1),
    ],
)
def test_weekends_are_no_gaps_and_weekdays_are(tmp_path: Path, timeframe: str, moments: tuple[str, ...], gaps: int) -> None:
    path = tmp_path / "x"
    path.write_text(prices(*moments))
    assert load(path, "x", "SP500", timeframe, timeframe).gaps == gaps


def test_a_crypto_week_ends_on_sunday_at_midnight(tmp_path: Path) -> None:
    """2017-01-02 is a Monday; the file ends exactly with the second week."""
    weekly = read(tmp_path, hourly(dt.datetime(2017, 1, 2, tzinfo=dt.UTC), 14 * 24), "1w", "BTCUSD")
    assert [stamp(moment) for moment in weekly.bars.opens] == ["2017-01-02T00:00:00Z", "2017-01-09T00:00:00Z"]
    assert [stamp(moment) for moment in weekly.bars.closes] == ["2017-01-09T00:00:00Z", "2017-01-16T00:00:00Z"]
    assert weekly.bars.open.tolist() == [1.0, 169.0]
    assert weekly.bars.close.tolist() == [168.0, 336.0]
    assert weekly.warnings == []


def test_a_forex_week_ends_on_friday_at_five_in_new_york(tmp_path: Path) -> None:
    weekly = read(tmp_path, hourly(dt.datetime(2017, 1, 1, 22, tzinfo=dt.UTC), 5 * 24), "1w")
    assert [(stamp(opens), stamp(closes)) for opens, closes in zip(weekly.bars.opens, weekly.bars.closes, strict=True)] == [
        ("2017-01-01T22:00:00Z", "2017-01-06T22:00:00Z")
    ]


def test_a_bar_of_four_hours_ends_with_its_session_where_a_clock_goes_forward(tmp_path: Path) -> None:
    """The forex day that begins on 2017-03-11 at 22:00 UTC has 23 hours: its last bar has three."""
    bars = read(tmp_path, hourly(dt.datetime(2017, 3, 10, 22, tzinfo=dt.UTC), 71), "4h").bars
    spans = dict(zip(map(stamp, bars.opens), map(stamp, bars.closes), strict=True))
    assert spans["2017-03-12T18:00:00Z"] == "2017-03-12T21:00:00Z"
    assert "2017-03-12T21:00:00Z" in spans
    assert (bars.opens[1:] == bars.closes[:-1]).all()
