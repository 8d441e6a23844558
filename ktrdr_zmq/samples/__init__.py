"""Sample bars that come with the package, so that a first run needs no download: the files and what is known of them, no parsing."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from ktrdr_zmq.strategy.timeframes import can_derive

FOLDER: Final = Path(__file__).parent


class Sample(NamedTuple):
    """A built-in file of bars; `first` and `last` are days, `licence` is a file beside it."""

    symbol: str
    timeframe: str
    path: Path
    bars: int
    first: str
    last: str
    source: str
    licence: Path


SAMPLES: Final = (
    Sample(
        "EURUSD", "1h", FOLDER / "EURUSD_1h.csv", 6225, "2017-01-01", "2017-12-29",
        "EUR/USD ask prices, from the Python package gym-anytrading 2.0.0 (MIT)", FOLDER / "LICENSE-EURUSD.txt",
    ),
    Sample(
        "SP500", "1d", FOLDER / "SP500_1d.csv", 5031, "1999-01-04", "2018-12-31",
        "S&P 500 index, from the Python package arch 8.0.0 (NCSA)", FOLDER / "LICENSE-SP500.md",
    ),
)  # fmt: skip


def list_samples() -> list[Sample]:
    """All of them."""
    return list(SAMPLES)


def find_sample(symbol: str, *timeframes: str) -> Sample | None:
    """The sample from which bars of a symbol can be made in all these timeframes; None if there is none."""
    return next(
        (sample for sample in SAMPLES if sample.symbol == symbol and all(can_derive(sample.timeframe, one) for one in timeframes)), None
    )
