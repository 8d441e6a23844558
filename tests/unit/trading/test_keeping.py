"""Bars kept as arrays: the same bits, never a part, never what was changed, never more than the limit."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ktrdr_worker.trading.bars import Loaded, load, loading
from ktrdr_worker.trading.bars.converting import canonical
from ktrdr_worker.trading.bars.keeping import VERSION, Keeper
from ktrdr_zmq.samples import find_sample
from tests.unit.trading.made import walk

SAMPLE = find_sample("EURUSD", "1h")
assert SAMPLE is not None
DIGEST = hashlib.sha256(SAMPLE.path.read_bytes()).hexdigest()


def read(folder: Path | None, timeframe: str = "1d", symbol: str = "EURUSD") -> Loaded:
    assert SAMPLE is not None
    return load(SAMPLE.path, "x.csv", symbol, "1h", timeframe, digest=DIGEST, cache_dir=folder)


def same(left: Loaded, right: Loaded) -> bool:
    arrays = all((a == b).all() and a.dtype == b.dtype for a, b in zip(left.bars[2:], right.bars[2:], strict=True))
    return arrays and (left.bars[:2], left.gaps, left.warnings, left.report) == (right.bars[:2], right.gaps, right.warnings, right.report)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that were parsed."""
    names: list[str] = []
    real = loading.read

    def read(path: Path, name: str, *rest: Any, **more: Any) -> Any:
        names.append(name)
        return real(path, name, *rest, **more)

    monkeypatch.setattr(loading, "read", read)
    return names


def test_a_file_is_parsed_once(tmp_path: Path, parsed: list[str]) -> None:
    first, second = read(tmp_path), read(tmp_path)
    assert parsed == ["x.csv"]
    assert same(first, second)
    assert same(first, read(None))
    assert not isinstance(second.bars.open, np.memmap)


def test_what_decides_the_bars_decides_the_place(tmp_path: Path, parsed: list[str]) -> None:
    for timeframe, symbol in (("1d", "EURUSD"), ("1w", "EURUSD"), ("4h", "EURUSD"), ("1d", "EURUSD")):
        assert same(read(tmp_path, timeframe, symbol), read(None, timeframe, symbol))
    assert len(list(tmp_path.iterdir())) == 3
    keys = {
        Keeper.key(*parts)
        for parts in (
            ("a", "S", "1h", "1h"),
            ("b", "S", "1h", "1h"),
            ("a", "T", "1h", "1h"),
            ("a", "S", "1m", "1h"),
            ("a", "S", "1h", "4h"),
        )
    }
    assert len(keys) == 5


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[-9] ^= 1
    path.write_bytes(octets)


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["times.npy", "prices.npy", "about"])
def test_what_was_damaged_is_made_again(tmp_path: Path, parsed: list[str], name: str, harm: Callable[[Path], object]) -> None:
    first = read(tmp_path)
    (place,) = tmp_path.iterdir()
    harm(place / name)
    assert same(first, read(tmp_path))
    assert parsed == ["x.csv"] * 2
    assert same(first, read(tmp_path))
    assert parsed == ["x.csv"] * 2
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_a_set_that_a_dead_process_left_half_made_is_not_seen(tmp_path: Path, parsed: list[str]) -> None:
    first = read(tmp_path)
    (place,) = tmp_path.iterdir()
    shutil.copytree(place, tmp_path / ".half")
    (tmp_path / ".half" / "about").unlink()
    assert same(first, read(tmp_path))
    os.utime(tmp_path / ".half", (0, 0))
    read(tmp_path, "1w")
    assert not (tmp_path / ".half").exists()


def test_writing_into_kept_bars_changes_nobody_elses(tmp_path: Path) -> None:
    first = read(tmp_path)
    again = read(tmp_path)
    again.bars.close[:] = 0.0
    assert same(first, read(tmp_path))


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    bars = walk(1000)
    report = read(None).report
    keeper = Keeper(tmp_path, limit=150_000)  # two sets of 64 octets a bar
    for number, key in enumerate(("a", "b")):
        keeper.keep(key, bars, [], report)
        os.utime(tmp_path / key / "about", (number + 1, number + 1))
    assert keeper.find("a") is not None  # now the newest but for the next
    keeper.keep("c", bars, [], report)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}
    Keeper(tmp_path, limit=1).keep("d", bars, [], report)
    assert not (tmp_path / "a").exists()


def test_a_set_that_is_removed_stays_with_whoever_has_it(tmp_path: Path) -> None:
    first = read(tmp_path)
    again = read(tmp_path)
    shutil.rmtree(tmp_path)
    assert same(first, again)


def test_without_a_disk_the_bars_are_there_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert same(read(tmp_path / "file" / "below"), read(None))


def test_jobs_side_by_side_make_one_set(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: read(tmp_path), range(8)))
    assert all(same(made[0], other) for other in made[1:])
    assert len([path for path in tmp_path.iterdir() if path.name[0] != "."]) == 1


def test_whoever_changes_what_is_made_of_a_file_must_raise_the_version() -> None:
    """Else workers would go on with what they kept. If this fails: raise VERSION in keeping.py, and record the new digest here."""
    running = hashlib.sha256()
    for symbol, source in (("EURUSD", "1h"), ("SP500", "1d")):
        sample = find_sample(symbol, source)
        assert sample is not None
        for timeframe in (source, "4h", "1d", "1w"):
            if (symbol, timeframe) != ("SP500", "4h"):
                bars = load(sample.path, "x", symbol, source, timeframe).bars
                running.update(canonical(bars, volume=False) + bars.closes.tobytes() + bars.sessions.tobytes())
    assert (VERSION, running.hexdigest()) == (1, "be65b30f4c6d677fcbdd8974db6d7794649d08a5c11bd25209410b71f144457f")
