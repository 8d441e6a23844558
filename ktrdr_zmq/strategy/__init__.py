"""The strategy grammar: what a person writes in YAML, checked before anything is submitted. No TA-Lib, no arrays.

Every accepted key has an effect, which docs/strategies.md states in one line; what has none is not accepted. Names are loaded when they are
first used: pydantic and the YAML reader take a while to import, and most commands need neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktrdr_zmq.strategy.library import StrategyInfo, find_strategy, list_strategies
    from ktrdr_zmq.strategy.parsing import check_overrides, parse_strategy
    from ktrdr_zmq.strategy.placement import placement
    from ktrdr_zmq.strategy.problems import Problem, StrategyInvalid
    from ktrdr_zmq.strategy.schema import Strategy

_HOME = {
    "library": ("StrategyInfo", "find_strategy", "list_strategies"),
    "parsing": ("check_overrides", "parse_strategy"),
    "placement": ("placement",),
    "problems": ("Problem", "StrategyInvalid"),
    "schema": ("Strategy",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Problem",
    "Strategy",
    "StrategyInfo",
    "StrategyInvalid",
    "check_overrides",
    "find_strategy",
    "list_strategies",
    "parse_strategy",
    "placement",
]


def __getattr__(name: str) -> Any:
    module = _MODULE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
