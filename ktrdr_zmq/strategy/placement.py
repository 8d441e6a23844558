"""What a command says about symbols and timeframe, as values of the strategy, so that the job records it like all that was set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.strategy.document import Document


def placement(text: str, source: str, overrides: Mapping[str, Any], symbols: Sequence[str], timeframe: str | None) -> dict[str, Any]:
    """Values by key path that put a strategy on other symbols or another timeframe; none where the file says the same.

    Symbols take the place of all that the file names. A timeframe takes the place of a single one; of several it chooses the base.

    Parameters
    ----------
    text, source : str
        YAML, and where it is from.
    overrides : mapping
        What else is set.
    symbols : sequence of str
        As the command names them; none leaves the file's.
    timeframe : str, optional

    Raises
    ------
    StrategyInvalid
        When the text is no YAML mapping.
    UsageError
        When the strategy has several timeframes, and this is none of them.
    """
    document = Document(text, source)
    for key, value in overrides.items():
        document.override(str(key), value)  # what is wrong with it is said by parse_strategy
    data = document.tree.get("training_data")
    given = data if isinstance(data, dict) else {}
    found: dict[str, Any] = {}
    if symbols:
        one = {"mode": "single", "symbol": symbols[0]}
        found["training_data.symbols"] = one if len(symbols) == 1 else {"mode": "multi_symbol", "list": list(symbols)}
    own = given.get("timeframes")
    if timeframe is not None and isinstance(own, dict) and own.get("mode") == "multi_timeframe":
        names = own.get("list")
        if isinstance(names, list) and timeframe not in names:
            raise UsageError(
                f"The strategy reads bars of {', '.join(map(str, names))}; --timeframe says on which of them it decides, and "
                f"{timeframe} is none of them.",
                hint=f"To read others, set for example: --set 'training_data.timeframes.list=[{timeframe}, 1d]'",
            )
        found["training_data.timeframes.base_timeframe"] = timeframe
    elif timeframe is not None:
        found["training_data.timeframes"] = {"mode": "single", "timeframe": timeframe}
    return {key: value for key, value in found.items() if _at(given, key.split(".")[1:]) != value}


def _at(tree: Any, path: Sequence[str]) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree
