"""A YAML text as plain values, with the line of every key. YAML 1.2: ON and NO stay text, 1e-3 is a number, a duplicate key is an error."""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Mapping
from typing import Any, Final

from ktrdr_zmq.strategy.problems import Problem, StrategyInvalid

MAX_TEXT: Final = 256 * 1024
MAX_NODES: Final = 20_000
MAX_DEPTH: Final = 20

Path = tuple[str | int, ...]


def dotted(path: Path) -> str:
    """A key path as people write it: ``nn_inputs[0].fuzzy_set``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


class Document:
    """What a file says.

    Parameters
    ----------
    text : str
    source : str
        The file's name, for messages.

    Attributes
    ----------
    tree : dict
        Plain dictionaries, lists, texts, numbers, booleans and None.

    Raises
    ------
    StrategyInvalid
        When the text is no YAML mapping, or is beyond any reason.
    """

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self._lines: dict[Path, int] = {}
        self._set: dict[Path, str] = {}
        self._nodes = 0
        if len(text) > MAX_TEXT:
            raise StrategyInvalid(source, [Problem(source, "", f"has {len(text):,} characters; the limit is {MAX_TEXT:,}")])
        if any(line.startswith("%") for line in text.splitlines()[:20]):
            raise StrategyInvalid(source, [Problem(source, "", "has a directive (a line with % in front); YAML is read as version 1.2")])
        loaded = self._load(text)
        if not isinstance(loaded, dict):
            what = "is empty" if loaded is None else "holds no sections"
            raise StrategyInvalid(source, [Problem(f"{source}:1", "", f"{what}; a strategy begins with name: and has sections")])
        self.tree: dict[str, Any] = self._plain(loaded, ())

    def _load(self, text: str) -> Any:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            return YAML(typ="rt").load(io.StringIO(text))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{self.source}:{mark.line + 1}" if mark is not None else self.source
            what = str(error.problem or error.context or "is no YAML").partition("\n")[0]
            raise StrategyInvalid(self.source, [Problem(where, "", f"is no valid YAML: {what}")]) from None
        except (YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StrategyInvalid(
                self.source, [Problem(self.source, "", f"is no valid YAML: {str(error).partition(chr(10))[0]}")]
            ) from None

    def _plain(self, value: Any, path: Path) -> Any:
        """Ruamel's rich values as plain ones; remembers lines on the way."""
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise StrategyInvalid(self.source, [Problem(self.where(path), dotted(path[:4]), "is too large or too deeply nested")])
        if isinstance(value, dict):
            plain = {}
            for key, item in value.items():
                name = key if isinstance(key, str) else str(key)
                if name in plain:
                    raise StrategyInvalid(self.source, [Problem(self.where((*path, name)), dotted((*path, name)), "is there twice")])
                self._lines[(*path, name)] = (
                    value.lc.key(key)[0] + 1 if hasattr(value, "lc") and key in (value.lc.data or {}) else self._line(path)
                )
                plain[name] = self._plain(item, (*path, name))
            return plain
        if isinstance(value, list):
            for index in range(len(value)):
                self._lines[(*path, index)] = value.lc.item(index)[0] + 1 if hasattr(value, "lc") and value.lc.data else self._line(path)
            return [self._plain(item, (*path, index)) for index, item in enumerate(value)]
        return _scalar(value)

    def _line(self, path: Path) -> int:
        for end in range(len(path), 0, -1):
            if path[:end] in self._lines:
                return self._lines[path[:end]]
        return 1

    def where(self, path: Path) -> str:
        """The place of a key, or of the nearest one around it: ``file:line``, or the command line that set it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self._set:
                return self._set[path[:end]]
        return f"{self.source}:{self._line(path)}"

    def override(self, key: str, value: Any) -> Problem | None:
        """Set the value at a key path; what cannot be is returned as a problem. Whether the key is known shows later."""
        where = f"--set {key[:100]}"
        parts: Path = tuple(int(p) if re.fullmatch("[0-9]{1,6}", p) else p for p in key.replace("[", ".").replace("]", "").split("."))
        value = _normal(value)
        if any(part == "" for part in parts) or len(parts) > MAX_DEPTH or len(key) > 500:
            return Problem(where, key, "is no key path; write for example training.epochs")
        target: Any = self.tree
        for depth, part in enumerate(parts[:-1]):
            if isinstance(target, dict) and str(part) not in target:
                target[str(part)] = {}
                self._set[parts[: depth + 1]] = where
            target = _step(target, part)
            if not isinstance(target, dict | list):
                return Problem(where, key, f"{dotted(parts[: depth + 1])} has no keys")
        last = parts[-1]
        if isinstance(target, list):
            if not isinstance(last, int) or last >= len(target):
                return Problem(where, key, f"{dotted(parts[:-1])} is a list of {len(target)}")
            target[last] = value
        else:
            target[str(last)] = value
        self._set[parts] = where
        return None


def _normal(value: Any, depth: int = 0) -> Any:
    """A value from a program as a document would have it: keys are text, and nothing is shared with the caller."""
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        return {str(key): _normal(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth < MAX_DEPTH:
        return [_normal(item, depth + 1) for item in value]
    return _scalar(value)


def _step(target: Any, part: str | int) -> Any:
    if isinstance(target, list):
        return target[part] if isinstance(part, int) and part < len(target) else None
    return target.get(str(part))


def _scalar(value: Any) -> Any:
    """A plain value; dates stay as they were written, because no key takes one."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if type(value).__name__ == "ScalarBoolean":
        return bool(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value)
