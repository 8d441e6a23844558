"""Keeps bars on disk as arrays, so that a file is parsed once and then mapped into memory, by all processes of a worker together.

A folder holds one set of bars each, named by what it was made of. It is made aside and renamed, so that nobody sees a part of it; it is
checked against its digests whenever it is used, and made again if it is not what was written. It can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from ktrdr_worker.trading.bars.gaps import GapReport
from ktrdr_worker.trading.bars.table import Bars

VERSION: Final = 1
"""Raise it whenever reading, checking or deriving makes other bars of the same file: what was kept before is not used then."""
LIMIT: Final = 2 << 30
"""Octets that may stay; the least recently used go first."""
STALE_S: Final = 3600.0
"""Age in seconds at which something half made is nobody's any more."""
TIMES: Final = ("opens", "closes", "sessions")
PRICES: Final = ("open", "high", "low", "close", "volume")
ABOUT: Final = "about"


class Keeper:
    """Sets of bars in a folder.

    Parameters
    ----------
    folder : Path
        Made when something is kept.
    limit : int
        Octets that may stay.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder = folder
        self._limit = limit

    @staticmethod
    def key(digest: str, symbol: str, source_timeframe: str, timeframe: str) -> str:
        """The name of a set: of a file's SHA-256 (hex), and of all else that decides what bars are made of it."""
        return hashlib.sha256(f"{VERSION} {digest} {symbol} {source_timeframe} {timeframe}".encode()).hexdigest()

    def find(self, key: str) -> tuple[Bars, list[str], GapReport] | None:
        """What is kept under a key; None if that is nothing, or nothing that can be trusted.

        The arrays are mapped privately: several processes share the memory, and whoever writes into one changes nothing but its own copy.
        """
        place = self._folder / key
        try:
            about = _read_about(place / ABOUT)
            times, prices = (_mapped(place / f"{name}.npy", about["sha256"][name]) for name in ("times", "prices"))
            os.utime(place / ABOUT)
            columns = {**dict(zip(TIMES, times, strict=True)), **dict(zip(PRICES, prices, strict=True))}
            bars = Bars(about["symbol"], about["timeframe"], **columns)
            return bars, list(about["warnings"]), GapReport(**about["report"])
        except (OSError, ValueError, KeyError, TypeError):
            if place.exists():
                self._remove(place)
            return None

    def keep(self, key: str, bars: Bars, warnings: list[str], report: GapReport) -> None:
        """Keep bars under a key, and make room. Without a disk that can be written nothing is kept."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=".", dir=self._folder))
            try:
                _write(aside, bars, warnings, report)
                aside.rename(self._folder / key)  # fails where another process was faster: its bars are the same
            finally:
                shutil.rmtree(aside, ignore_errors=True)
            self._trim(key)

    def _remove(self, place: Path) -> None:
        """Take a set out of sight at once, then delete it; whoever has it mapped keeps it."""
        with contextlib.suppress(OSError):
            aside = Path(tempfile.mkdtemp(prefix=".", dir=self._folder))
            try:
                place.rename(aside / "gone")
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def _trim(self, newest: str) -> None:
        kept = []
        for place in self._folder.iterdir():
            if place.name.startswith("."):
                if place.stat().st_mtime < time.time() - STALE_S:
                    shutil.rmtree(place, ignore_errors=True)
                continue
            with contextlib.suppress(FileNotFoundError):
                used = (place / ABOUT).stat().st_mtime_ns if (place / ABOUT).exists() else 0
                kept.append((place.name == newest, used, sum(file.stat().st_size for file in place.iterdir()), place))
        total = sum(size for _, _, size, _ in kept)
        for _, _, size, place in sorted(kept):
            if total <= self._limit:
                return
            self._remove(place)
            total -= size


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(place: Path, bars: Bars, warnings: list[str], report: GapReport) -> None:
    for name, fields in (("times", TIMES), ("prices", PRICES)):
        np.save(place / f"{name}.npy", np.stack([getattr(bars, field) for field in fields]), allow_pickle=False)
    about = {
        "symbol": bars.symbol, "timeframe": bars.timeframe, "warnings": warnings, "report": report._asdict(),
        "sha256": {name: _digest(place / f"{name}.npy") for name in ("times", "prices")},
    }  # fmt: skip
    text = json.dumps(about)
    (place / ABOUT).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", "utf-8")


def _read_about(path: Path) -> dict[str, Any]:
    digest, _, text = path.read_text("utf-8").partition("\n")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise ValueError(f"{path} is not what was written")
    return dict(json.loads(text))


def _mapped(path: Path, digest: str) -> Any:
    if _digest(path) != digest:
        raise ValueError(f"{path} is not what was written")
    return np.load(path, mmap_mode="c", allow_pickle=False).view(np.ndarray)
