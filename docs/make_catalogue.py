"""Write ktrdr_zmq/strategy/indicators.json: ``python docs/make_catalogue.py``; ``--check`` only compares. Needs the worker extra.

The catalogue is data for clients, which have neither TA-Lib nor NumPy. It comes from the functions in ktrdr_worker.trading.indicators.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from ktrdr_worker.trading.indicators import DEFINITIONS
from ktrdr_worker.trading.indicators.statistics import LEFT_OUT
from ktrdr_zmq.strategy.indicator import Indicator, Parameter

TARGET = FOLDER.parent / "ktrdr_zmq" / "strategy" / "indicators.json"


def parameter(given: Parameter) -> dict[str, Any]:
    """A parameter without what does not apply to it."""
    plain = {"default": given.default, "meaning": given.meaning}
    if given.choices:
        return {**plain, "choices": given.choices}
    return {**plain, "low": given.low, "high": given.high, "whole": given.whole}


def entry(known: Indicator) -> dict[str, Any]:
    return {**known._asdict(), "parameters": {name: parameter(given) for name, given in known.parameters.items()}}


def lines(value: Mapping[str, Any]) -> str:
    """One line for each key."""
    return ",\n".join(f"  {json.dumps(key)}: {json.dumps(one)}" for key, one in value.items())


def text() -> str:
    """The whole file: one indicator a line, in the order in which they are defined."""
    made = "Made by: python docs/make_catalogue.py"
    indicators = {name: entry(known) for name, known in DEFINITIONS.items()}
    return f'{{"made": "{made}",\n"indicators": {{\n{lines(indicators)}\n}},\n"left_out": {{\n{lines(LEFT_OUT)}\n}}}}\n'


def main(argv: list[str]) -> int:
    """Write, or compare; returns the exit code."""
    new = text()
    if TARGET.read_text(encoding="utf-8") == new:
        return 0
    if "--check" in argv:
        sys.stderr.write("indicators.json is not up to date; run: python docs/make_catalogue.py\n")
        return 1
    TARGET.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
