"""Bars: how they are read, checked, made coarser and kept. Nothing is invented and nothing is repaired.

``table`` is what bars are; ``reading`` makes columns of a file (``text`` and ``parquet`` open it, ``moments`` reads its times); ``checks``
finds what is wrong in them; ``sessions`` knows when days begin; ``deriving`` makes coarser bars; ``gaps`` finds what is missing;
``keeping`` keeps arrays on disk; ``loading`` does all that for a job, ``converting`` makes a canonical file of a foreign one.
"""

from ktrdr_worker.trading.bars.deriving import derive
from ktrdr_worker.trading.bars.gaps import GapReport, count_gaps, find_gaps
from ktrdr_worker.trading.bars.loading import Loaded, load
from ktrdr_worker.trading.bars.sessions import periods_per_year, session_end, session_numbers
from ktrdr_worker.trading.bars.table import DAY, MINUTE, Bars, DataError, cut, index_of, moment, stamp

__all__ = [
    "DAY",
    "MINUTE",
    "Bars",
    "DataError",
    "GapReport",
    "Loaded",
    "count_gaps",
    "cut",
    "derive",
    "find_gaps",
    "index_of",
    "load",
    "moment",
    "periods_per_year",
    "session_end",
    "session_numbers",
    "stamp",
]
