"""Coarser bars against a second way that is slow and obvious: a dictionary filled bar by bar with the standard library's zones.

Every pair of timeframes, every class of symbols, across the days on which clocks change in America, Europe and Australia, by the rules of
today and of 1999, with holidays, half days, extended hours and holes.
"""

from __future__ import annotations

import datetime as dt
import functools
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from ktrdr_worker.trading.bars import Bars, DataError, cut, derive, session_end, session_numbers, stamp
from ktrdr_zmq.strategy.symbols import SymbolClass, classify
from ktrdr_zmq.strategy.timeframes import MINUTES, can_derive

NEW_YORK, UTC = ZoneInfo("America/New_York"), dt.UTC
SYMBOLS = {"forex": "EURUSD", "stock": "AAPL", "crypto": "BTCUSDT"}
CHANGES = {
    "america in spring": dt.date(2017, 3, 12), "america in autumn": dt.date(2017, 11, 5), "america in 1999": dt.date(1999, 4, 4),
    "europe in spring": dt.date(2017, 3, 26), "europe in autumn": dt.date(2017, 10, 29), "australia in autumn": dt.date(2017, 4, 2),
    "australia in spring": dt.date(2017, 10, 1),
}  # fmt: skip
PAIRS = [(fine, coarse) for fine in MINUTES for coarse in MINUTES if fine != coarse and can_derive(fine, coarse)]
HALF_DAY, HOLIDAY = 4, 5
"""Which weekdays' sessions of the window, counted from its beginning, are short or absent."""


class Span(NamedTuple):
    begin: dt.datetime
    end: dt.datetime


# ---------------------------------------------------------------- the second way


def local(date: dt.date, hour: int, minute: int = 0) -> dt.datetime:
    return dt.datetime.combine(date, dt.time(hour, minute), NEW_YORK).astimezone(UTC)


def session(date: dt.date, kind: str) -> Span:
    """What is traded on a date; of a stock, regular hours."""
    if kind == "forex":
        return Span(local(date - dt.timedelta(days=1), 17), local(date, 17))
    if kind == "stock":
        return Span(local(date, 9, 30), local(date, 16))
    midnight = dt.datetime.combine(date, dt.time(), UTC)
    return Span(midnight, midnight + dt.timedelta(days=1))


def date_of(moment: dt.datetime, kind: str) -> dt.date:
    if kind == "crypto":
        return moment.date()
    wall = moment.astimezone(NEW_YORK).replace(tzinfo=None)
    return (wall + dt.timedelta(hours=7) if kind == "forex" else wall).date()


def span(opens: dt.datetime, fine: str, coarse: str, kind: str) -> Span | None:
    """The coarser bar that a bar belongs to; None if to none."""
    step, length = dt.timedelta(minutes=MINUTES[fine]), dt.timedelta(minutes=MINUTES[coarse])
    date = date_of(opens, kind)
    monday = date - dt.timedelta(days=date.weekday())
    begin, end = session(date, kind)
    regular = kind != "stock" or (opens < end and opens + step > begin)
    if coarse in ("1d", "1w"):
        if not regular:
            return None
        if coarse == "1w":
            last = monday + dt.timedelta(days=6 if kind == "crypto" else 4)
            begin, end = session(monday, kind)[0], session(last, kind)[1]
            if kind == "stock" and date == last:
                end = max(end, opens + step)
        elif kind == "stock":
            end = max(end, opens + step)
        return Span(begin, end)
    if not regular and opens < begin:
        begins = begin
        while begins > opens:
            begins -= length
        return Span(max(begins, local(date, 0)), begins + length)
    if not regular:
        begin, end = end, local(date + dt.timedelta(days=1), 0)
    begins = begin + (opens - begin) // length * length
    ends = min(begins + length, end)
    return Span(begins, max(ends, opens + step) if kind == "stock" and regular and ends == end else ends)


def second_way(source: Bars, coarse: str, kind: str) -> list[tuple[Span, list[int]]]:
    """Coarser bars with the indices of what they are made of; without a first and last one of which there is only a part."""
    groups: dict[dt.datetime, tuple[Span, list[int]]] = {}
    used = []
    for index, opens in enumerate(source.opens.tolist()):
        found = span(at(opens), source.timeframe, coarse, kind)
        if found is not None:
            used.append(index)
            members = groups[found.begin][1] if found.begin in groups else []
            groups[found.begin] = (found, [*members, index])
    made = list(groups.values())
    if at(int(source.opens[used[0]])) > made[0][0].begin:
        del made[0]
    if made and at(int(source.closes[used[-1]])) < made[-1][0].end:
        del made[-1]
    return made


def weeks_of_days(source: Bars, kind: str) -> list[tuple[Span, list[int]]]:
    """Weeks of daily bars: they begin with their first day, and end when their last one would."""
    days = [at(opens + 12 * 3600 * 10**9).date() for opens in source.opens.tolist()]
    final = 6 if kind == "crypto" else 4
    groups: dict[tuple[int, int], list[int]] = {}
    for index, day in enumerate(days):
        groups.setdefault(day.isocalendar()[:2], []).append(index)
    made = []
    for members in groups.values():
        missing = dt.timedelta(days=final - days[members[-1]].weekday())
        made.append((Span(at(int(source.opens[members[0]])), at(int(source.closes[members[-1]])) + missing), members))
    if days[0].weekday() > 0:
        del made[0]
    if days[-1].weekday() < final:
        del made[-1]
    return made


def at(nanoseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(nanoseconds // 10**9, UTC)


# ---------------------------------------------------------------- what it is tried on


@functools.cache
def bars_around(change: str, kind: str, fine: str) -> Bars:
    """Nineteen days around a change of clocks; a tenth of the bars is missing, of short ones most, in blocks."""
    chance = np.random.default_rng([len(change), len(kind), MINUTES[fine]])
    step = dt.timedelta(minutes=MINUTES[fine])
    opens: list[dt.datetime] = []
    working = 0
    for offset in range(-9, 10):
        date = CHANGES[change] + dt.timedelta(days=offset)
        if kind != "crypto" and date.weekday() > 4:
            continue
        working += 1
        if working == HOLIDAY and kind != "crypto":
            continue
        begin, end = session(date, kind)
        if working == HALF_DAY and kind == "stock":
            end = local(date, 13)
        if fine == "1d":
            opens.append(begin if kind == "forex" else dt.datetime.combine(date, dt.time(), UTC))
            continue
        if kind == "stock" and step <= dt.timedelta(minutes=30):
            begin, end = local(date, 4), end + dt.timedelta(hours=4)
        while begin < end:
            opens.append(begin)
            begin += step
    times = np.array([int(moment.timestamp()) for moment in opens], dtype=np.int64) * 10**9
    block = 60 if fine == "1m" else 12 if fine == "5m" else 1
    missing = {"1m": 0.88, "5m": 0.7}.get(fine, 0.1)
    keep = np.repeat(chance.uniform(size=len(times) // block + 1) > missing, block)[: len(times)]
    for edge in (times[times % (24 * 3600 * 10**9) < 10**9], times[:1], times[-1:]):
        keep[np.isin(times, edge)] = True
    if kind == "stock":  # without its last hours a stock's day could not be told
        keep |= [at(int(moment)).astimezone(NEW_YORK).strftime("%H:%M") in ("15:30", "15:45") for moment in times]
    times = times[keep]
    prices = chance.uniform(1, 2, (5, len(times)))
    symbol = SYMBOLS[kind]
    closes = times + MINUTES[fine] * 60 * 10**9
    return Bars(
        symbol, fine, times, closes, prices[0], prices.max(axis=0), prices.min(axis=0), prices[1], prices[2],
        session_numbers(times, fine, classify(symbol)),
    )  # fmt: skip


def some_changes(fine: str, coarse: str) -> list[str]:
    """All of them; for minutes, of which there are many, two."""
    names = list(CHANGES)
    first = (MINUTES[coarse] + MINUTES[fine]) % 3
    return names if MINUTES[fine] >= 60 else [names[first], names[3 + first]]


@pytest.mark.parametrize("kind", SYMBOLS)
@pytest.mark.parametrize("fine,coarse", PAIRS)
def test_every_pair_of_timeframes_across_changes_of_clocks(fine: str, coarse: str, kind: str) -> None:
    for change in some_changes(fine, coarse):
        source = bars_around(change, kind, fine)
        made = derive(source, coarse, classify(source.symbol), [], "x")
        wanted = weeks_of_days(source, kind) if fine == "1d" else second_way(source, coarse, kind)
        assert [(stamp(a), stamp(b)) for a, b in zip(made.opens, made.closes, strict=True)] == [
            (each.begin.strftime("%Y-%m-%dT%H:%M:%SZ"), each.end.strftime("%Y-%m-%dT%H:%M:%SZ")) for each, _ in wanted
        ], change
        for number, (_, members) in enumerate(wanted):
            assert made.open[number] == source.open[members[0]]
            assert made.close[number] == source.close[members[-1]]
            assert made.high[number] == max(source.high[members])
            assert made.low[number] == min(source.low[members])
            assert made.volume[number] == pytest.approx(sum(source.volume[members]))
            assert made.closes[number] >= source.closes[members[-1]]  # nothing is known before it is complete


@pytest.mark.parametrize("kind", SYMBOLS)
@pytest.mark.parametrize("fine,coarse", [pair for pair in PAIRS if MINUTES[pair[0]] >= 30])
def test_what_comes_later_changes_no_bar_that_was_complete(fine: str, coarse: str, kind: str) -> None:
    chance = np.random.default_rng(MINUTES[coarse])
    source = bars_around("america in spring", kind, fine)
    symbol_class = classify(source.symbol)
    whole = derive(source, coarse, symbol_class, [], "x")
    for end in [*chance.integers(1, len(source.opens), 30).tolist(), len(source.opens)]:
        now = source.closes[end - 1]
        complete = int(np.searchsorted(whole.closes, now, side="right"))
        part = visible(cut(source, 0, end), coarse, symbol_class, now)
        assert part == [(*row,) for row in zip(*(column[:complete].tolist() for column in whole[2:-1]), strict=True)]


def visible(source: Bars, coarse: str, kind: SymbolClass, now: int) -> list[tuple[float, ...]]:
    """The coarser bars that are complete at a moment, as rows."""
    try:
        made = derive(source, coarse, kind, [], "x")
    except DataError as error:  # on the first day of a stock it cannot be told yet whether it is New York's
        assert "last hour of its session" in error.message
        return []
    complete = made.closes <= now
    return [(*row,) for row in zip(*(column[complete].tolist() for column in made[2:-1]), strict=True)]


# ---------------------------------------------------------------- cases worth a name


def hours(symbol: str, *opens: str, timeframe: str = "1h") -> Bars:
    times = np.array([int(dt.datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp()) for text in opens], dtype=np.int64) * 10**9
    ones = np.arange(1.0, len(opens) + 1)
    closes = times + MINUTES[timeframe] * 60 * 10**9
    sessions = session_numbers(times, timeframe, classify(symbol))
    return Bars(symbol, timeframe, times, closes, ones, ones, ones, ones, ones, sessions)


def spans(bars: Bars) -> list[str]:
    """Beginnings and ends by the clock of New York."""
    return [
        f"{at(int(a)).astimezone(NEW_YORK):%d %H:%M}-{at(int(b)).astimezone(NEW_YORK):%H:%M}"
        for a, b in zip(bars.opens, bars.closes, strict=True)
    ]


def day(date: str, *clock: str) -> list[str]:
    return [f"{date}T{time}" for time in clock]


EXTENDED = ("04:00", "08:30", "09:00", "09:30", "10:00", "13:00", "13:30", "15:30", "16:00", "19:30")


def test_four_hours_of_a_stock_are_counted_from_its_opening() -> None:
    bars = hours("AAPL", *day("2017-01-04", *EXTENDED), *day("2017-01-05", *EXTENDED), timeframe="30m")
    made = derive(bars, "4h", classify("AAPL"), [], "x")
    assert spans(made)[:5] == ["04 05:30-09:30", "04 09:30-13:30", "04 13:30-16:00", "04 16:00-20:00", "05 01:30-05:30"]
    assert made.volume[:5].tolist() == [2 + 3, 4 + 5 + 6, 7 + 8, 9 + 10, 11]
    assert spans(derive(bars, "1h", classify("AAPL"), [], "x"))[3:5] == ["04 13:30-14:30", "04 15:30-16:00"]


def test_days_of_a_stock_are_regular_hours_and_the_rest_is_told() -> None:
    bars = hours("AAPL", *day("2017-01-04", *EXTENDED), *day("2017-01-05", *EXTENDED), timeframe="30m")
    told: list[str] = []
    made = derive(bars, "1d", classify("AAPL"), told, "x")
    assert spans(made) == ["04 09:30-16:00", "05 09:30-16:00"]
    assert made.volume.tolist() == [4 + 5 + 6 + 7 + 8, 14 + 15 + 16 + 17 + 18]
    assert told == ["10 bars outside regular hours (9:30 to 16:00 New York) are no part of the 1d bars."]


def test_full_hours_make_days_and_no_four_hours() -> None:
    clock = [f"{hour:02}:00" for hour in range(9, 16)]
    bars = hours("AAPL", *day("2017-01-04", *clock), *day("2017-01-05", *clock))
    made = derive(bars, "1d", classify("AAPL"), [], "x")
    assert spans(made) == ["04 09:30-16:00", "05 09:30-16:00"]
    assert made.volume.tolist() == [sum(range(1, 8)), sum(range(8, 15))]
    with pytest.raises(DataError, match=r"opens at 2017-01-04T18:00:00Z lies astride the end of one of 4h at 2017-01-04T18:30:00Z"):
        derive(bars, "4h", classify("AAPL"), [], "x")


def test_an_hour_from_half_past_three_is_known_when_it_says_it_ends() -> None:
    clock = [f"{hour:02}:30" for hour in range(9, 16)]
    made = derive(hours("AAPL", *day("2017-01-04", *clock), *day("2017-01-05", *clock)), "1d", classify("AAPL"), [], "x")
    assert spans(made) == ["04 09:30-16:30", "05 09:30-16:30"]


@pytest.mark.parametrize("clock", [("03:00", "11:00"), ("19:00", "23:00")])
def test_days_of_another_exchange_are_refused(clock: tuple[str, ...]) -> None:
    bars = hours("DAX", *day("2017-01-04", *clock), *day("2017-01-05", *clock))
    with pytest.raises(DataError, match="DAX counts as a stock of New York, but on most days"):
        derive(bars, "1d", classify("DAX"), [], "x")


def test_a_week_of_a_stock_ends_on_friday_at_four_also_when_that_is_a_holiday() -> None:
    clock = ("09:30", "12:30", "15:30")
    dates = [f"2017-04-{number:02}" for number in (10, 11, 12, 13, 17, 18, 19, 20, 21)]  # the 14th was Good Friday
    bars = hours("AAPL", *(text for date in dates for text in day(date, *clock)), timeframe="30m")
    made = derive(bars, "1w", classify("AAPL"), [], "x")
    assert spans(made) == ["10 09:30-16:00", "17 09:30-16:00"]
    assert stamp(made.closes[0]) == "2017-04-14T20:00:00Z"


@pytest.mark.parametrize("symbol,kind", [("EURUSD", "forex"), ("AAPL", "stock")])
def test_a_stub_on_a_weekend_makes_no_week(symbol: str, kind: str) -> None:
    bars = hours(symbol, *(f"2017-01-{number:02}T07:00" for number in range(1, 10)), timeframe="1d")
    with pytest.raises(DataError, match=f"belongs to a weekend, but {symbol} counts as {kind}"):
        derive(bars, "1w", classify(symbol), [], "x")


def test_hours_beside_the_grid_make_no_longer_bars() -> None:
    bars = hours("EURUSD", *day("2017-01-04", "17:30", "18:30", "19:30", "20:30"))
    with pytest.raises(DataError, match="lies astride the end of one of 4h"):
        derive(bars, "4h", classify("EURUSD"), [], "x")


@pytest.mark.parametrize(
    "symbol,timeframe,source,said",
    [
        ("EURUSD", "1h", "1h", "17:00 New York"),
        ("EURUSD", "1d", "1h", "17:00 New York"),
        ("EURUSD", "1w", "4h", "Friday 17:00 New York"),
        ("BTCUSD", "1d", "4h", "midnight UTC"),
        ("BTCUSD", "1w", "1h", "Sunday midnight UTC"),
        ("SP500", "1h", "30m", "with the last bar of a date of New York"),
        ("SP500", "1d", "30m", "16:00 New York"),
        ("SP500", "1w", "30m", "Friday 16:00 New York"),
        ("SP500", "1w", "1d", "with Friday's bar of the file"),
        ("BTCUSD", "1w", "1d", "with Sunday's bar of the file"),
        ("SP500", "1d", "1d", "with each bar of the file"),
        ("EURUSD", "1w", "1w", "with each bar of the file"),
    ],
)
def test_the_end_of_a_session_in_words(symbol: str, timeframe: str, source: str, said: str) -> None:
    assert session_end(timeframe, source, classify(symbol)) == said


@pytest.mark.parametrize("kind", SYMBOLS)
@pytest.mark.parametrize("date", [dt.date(2017, 1, 12), dt.date(2017, 7, 12)])
def test_a_session_ends_when_it_is_said(kind: str, date: dt.date) -> None:
    zone, place = (UTC, "UTC") if kind == "crypto" else (NEW_YORK, "New York")
    clock = session(date, kind).end.astimezone(zone).strftime("%H:%M")
    assert session_end("1d", "1h", classify(SYMBOLS[kind])) == f"{clock if clock != '00:00' else 'midnight'} {place}"
