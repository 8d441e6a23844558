"""How long a worker takes for a file of bars: parsed for the first time, then mapped from what was kept.

    python benchmarks/bars.py
    python benchmarks/bars.py --bars 5000000 --json

Makes a file of one-minute bars of a random walk, reads it as a job does, again as the next job does, and again from a fresh process of the
same worker. Times are the best of several; the file is in the page cache throughout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ktrdr_worker.trading.bars import Bars, load, session_numbers
from ktrdr_worker.trading.bars.converting import canonical
from ktrdr_zmq.artifacts import file_digest
from ktrdr_zmq.strategy.symbols import classify

SYMBOL = "BTCUSDT"
MINUTE = 60 * 10**9


def made(count: int) -> Bars:
    """A random walk."""
    chance = np.random.default_rng(1)
    opens = np.int64(1_483_228_800 * 10**9) + np.arange(count, dtype=np.int64) * MINUTE
    close = np.exp(np.cumsum(chance.normal(0, 1e-4, count)))
    open_ = np.concatenate(([1.0], close[:-1]))
    volume = chance.uniform(1, 2, count)
    sessions = session_numbers(opens, "1m", classify(SYMBOL))
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    return Bars(SYMBOL, "1m", opens, opens + MINUTE, open_, high, low, close, volume, sessions)


def best(work: Callable[[], Any], repeat: int) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(repeat):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def measure(count: int, repeat: int) -> dict[str, float]:
    """Seconds for each way, and the file's size."""
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / f"{SYMBOL}_1m.csv", Path(folder) / "kept"
        path.write_bytes(canonical(made(count)))
        digest = file_digest(path).hex()

        def read(timeframe: str, cache_dir: Path | None) -> Any:
            return load(path, path.name, SYMBOL, "1m", timeframe, digest=digest, cache_dir=cache_dir)

        figures = {"bars": float(count), "octets": float(path.stat().st_size)}
        figures["parse"] = best(lambda: read("1m", None), repeat)
        begun = time.perf_counter()
        read("1m", cache)
        figures["parse_and_keep"] = time.perf_counter() - begun
        figures["mapped"] = best(lambda: read("1m", cache), repeat)
        figures["parse_and_derive_1h"] = best(lambda: read("1h", None), repeat)
        read("1h", cache)
        figures["mapped_1h"] = best(lambda: read("1h", cache), repeat)
        figures["gain"] = figures["parse"] / figures["mapped"]
        return figures


def main() -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bars", type=int, default=1_000_000)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    figures = measure(given.bars, given.repeat)
    if given.json:
        print(json.dumps(figures))
        return 0
    print(f"{figures['bars']:,.0f} bars of 1m, {figures['octets'] / 1e6:.0f} MB of CSV")
    for name in ("parse", "parse_and_keep", "mapped", "parse_and_derive_1h", "mapped_1h"):
        print(f"  {name:20} {figures[name] * 1000:9.1f} ms")
    print(f"  the second job has its bars {figures['gain']:.0f} times as fast as the first")
    return 0


if __name__ == "__main__":
    sys.exit(main())
