"""Where strategies are: an explicit path, ./strategies, the folder of KTRDR_STRATEGIES, or built in; in this order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ktrdr_zmq.config import load_settings
from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.strategy.problems import StrategyInvalid, did_you_mean

BUILT_IN: Final = Path(__file__).parent / "builtin"


class StrategyInfo(NamedTuple):
    """A strategy that can be named; `error` says what is wrong with it, and is empty if nothing is."""

    name: str
    description: str
    origin: str
    path: Path
    error: str


def _folders() -> Iterator[tuple[str, Path]]:
    yield "./strategies", Path("strategies")
    own = load_settings()["client.strategies"]
    if own:
        yield "KTRDR_STRATEGIES", Path(own).expanduser()
    yield "built-in", BUILT_IN


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())


def find_strategy(ref: str) -> tuple[str, str]:
    """The text of a strategy and where it is from.

    Parameters
    ----------
    ref : str
        A path (with a slash or an ending .yaml or .yml) or a name.

    Raises
    ------
    UsageError
        When there is none, or it cannot be read.
    """
    path = Path(ref).expanduser()
    if path.suffix in (".yaml", ".yml") or os.sep in ref:
        if not path.is_file():
            raise UsageError(f"There is no strategy file {ref}.", hint="See what there is with: ktrdr strategies list")
        return _read(path), str(path)
    known = []
    for _, folder in _folders():
        for file in _files(folder):
            if file.stem == ref:
                return _read(file), str(file) if folder != BUILT_IN else file.name
            known.append(file.stem)
    raise UsageError(
        f"There is no strategy {ref!r}{did_you_mean(ref, dict.fromkeys(known))}", hint="See what there is with: ktrdr strategies list"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The strategy file {path} cannot be read: {error}") from None


def list_strategies() -> list[StrategyInfo]:
    """Every strategy that can be named; of several with one name, the one that the name means."""
    from ktrdr_zmq.strategy.parsing import parse_strategy

    found: dict[str, StrategyInfo] = {}
    for origin, folder in _folders():
        for path in _files(folder):
            if path.stem in found:
                continue
            try:
                parsed = parse_strategy(_read(path), str(path))
                found[path.stem] = StrategyInfo(path.stem, parsed.description.strip(), origin, path, "")
            except StrategyInvalid as error:
                found[path.stem] = StrategyInfo(
                    path.stem, "", origin, path, f"{len(error.problems)} problems; see: ktrdr strategies validate {path}"
                )
            except UsageError as error:
                found[path.stem] = StrategyInfo(path.stem, "", origin, path, error.message)
    return sorted(found.values())
