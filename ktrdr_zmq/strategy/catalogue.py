"""The catalogue of indicators, as data: clients check strategies with it and need no TA-Lib.

``indicators.json`` beside this module is written by ``python docs/make_catalogue.py`` from the functions in
``ktrdr_worker.trading.indicators``; a test there compares the two, and both with TA-Lib.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from ktrdr_zmq.strategy.indicator import Indicator, Parameter


def _indicator(entry: dict[str, Any]) -> Indicator:
    parameters = {name: Parameter(**{**given, "choices": tuple(given.get("choices", ()))}) for name, given in entry["parameters"].items()}
    lists = {key: tuple(entry[key]) for key in ("outputs", "talib", "also")}
    ordered = tuple((smaller, larger) for smaller, larger in entry["ordered"])
    return Indicator(**{**entry, **lists, "ordered": ordered, "parameters": parameters})


_DATA: Final = json.loads(Path(__file__).with_name("indicators.json").read_text(encoding="utf-8"))

CATALOGUE: Final[Mapping[str, Indicator]] = {name: _indicator(entry) for name, entry in _DATA["indicators"].items()}
"""By name, family after family."""

LEFT_OUT: Final[Mapping[str, str]] = _DATA["left_out"]
"""Functions of TA-Lib that are no indicators here, and why."""


@cache
def _other_names() -> dict[str, str]:
    return {other.lower(): name for name, known in CATALOGUE.items() for other in (*known.also, *known.talib)}


def meant_by(name: str) -> str | None:
    """The indicator that somebody means who writes TA-Lib's or another name of it."""
    return _other_names().get(name.lower())
