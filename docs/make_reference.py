"""Write the generated parts of strategies.md, indicators.md and metrics.md: ``python docs/make_reference.py``; ``--check`` only compares.

The tables between ``<!-- generated: NAME -->`` and ``<!-- end -->`` come from the strategy grammar, the catalogue of indicators and the
schema of results. Everything else on the pages is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import get_args

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ktrdr_zmq import results
from ktrdr_zmq.strategy import schema
from ktrdr_zmq.strategy.catalogue import CATALOGUE, LEFT_OUT
from ktrdr_zmq.strategy.indicator import Indicator, Parameter
from ktrdr_zmq.strategy.rules import RULES

PAGES = ("strategies.md", "indicators.md", "metrics.md")
SECTIONS: Mapping[str, type[BaseModel]] = {
    "training_data": schema.TrainingData,
    "nn_inputs": schema.FuzzyInput,
    "model": schema.Model,
    "decisions": schema.Decisions,
    "risk": schema.Risk,
    "training": schema.Training,
}


def keys(kind: type[BaseModel], path: str) -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a section with its full path, sections inside it included."""
    for name, field in kind.model_fields.items():
        yield f"{path}.{name}", field
        for option in (field.annotation, *get_args(field.annotation)):
            if isinstance(option, type) and issubclass(option, BaseModel):
                yield from keys(option, f"{path}.{name}")


def default(field: FieldInfo) -> str:
    """What a key means when it is absent."""
    if field.default_factory is not None:
        return ""
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "none"
    text = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return f"`{text}`"


def limits(field: FieldInfo) -> str:
    """What a value may be."""
    words = [str(word) for option in (field.annotation, *get_args(field.annotation)) for word in get_args(option) if isinstance(word, str)]
    words += [str(word) for word in get_args(field.annotation) if isinstance(word, str)]
    if words:
        return " ".join(f"`{word}`" for word in dict.fromkeys(words))
    signs = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}
    found = [(signs[name], getattr(item, name)) for item in field.metadata for name in signs if hasattr(item, name)]
    return " ".join(f"{sign} {number:g}" for sign, number in found)


def condition(key: str) -> str:
    """Beside which other keys it has an effect."""
    found = []
    for rule in RULES:
        if rule.key == key:
            when = " and ".join(f"`{other}` {' or '.join(f'`{word}`' for word in words)}" for other, words in rule.when.items())
            found.append(f"{' '.join(f'`{value}`' for value in rule.values)} only with {when}" if rule.values else f"Only with {when}")
    return "".join(f" {text}." for text in found)


def section(name: str) -> Callable[[], Iterator[str]]:
    """The table of a section."""

    def rows() -> Iterator[str]:
        yield "| key | default | values | effect |"
        yield "|---|---|---|---|"
        kinds: list[tuple[str, type[BaseModel]]] = [(name, SECTIONS[name])]
        if name == "nn_inputs":
            kinds = [("nn_inputs[]", schema.FuzzyInput), ("nn_inputs[]", schema.RawInput)]
        seen: set[str] = set()
        for path, kind in kinds:
            for key, field in keys(kind, path):
                if key not in seen:
                    seen.add(key)
                    yield f"| `{key}` | {default(field)} | {limits(field)} | {field.description}{condition(key)} |"

    return rows


def indicators() -> Iterator[str]:
    """A heading and a table for each family of indicators."""
    family = ""
    for name, known in CATALOGUE.items():
        if known.family != family:
            yield from (*([""] if family else []), f"## {known.family}", "")
            yield "| type | parameters (default, range) | outputs | bars before | unstable | what it is |"
            yield "|---|---|---|---|---|---|"
            family = known.family
        yield f"| `{name}` | {parameters(known)} | {outputs(known)} | {before(known)} | {unstable(known)} | {known.meaning} |"


def parameters(known: Indicator) -> str:
    """All keys besides ``type``."""
    found = [f"`{key}` ({limits_of(parameter)})" for key, parameter in known.parameters.items()]
    return ", ".join([*found, *(["`source`"] if known.sourced else [])])


def limits_of(parameter: Parameter) -> str:
    if parameter.choices:
        return f"{parameter.default}"
    return f"{parameter.default:g}, {parameter.low:g} to {parameter.high:g}"


def outputs(known: Indicator) -> str:
    """Names of the outputs; the one that a bare id means is bold."""
    names = [f"`{output}`" for output in known.outputs]
    return ", ".join([f"**{names[0]}**" if known.bare and len(names) > 1 else names[0], *names[1:]])


def before(known: Indicator) -> int:
    return known.warmup({key: parameter.default for key, parameter in known.parameters.items()})


def unstable(known: Indicator) -> str:
    return {True: "yes", False: "", "average": "with its average"}[known.unstable]


def left_out() -> Iterator[str]:
    """TA-Lib's functions that are no indicators of their own."""
    yield "| TA-Lib | why not |"
    yield "|---|---|"
    for name, reason in LEFT_OUT.items():
        yield f"| `{name}` | It {reason}. |"


def metrics(kind: str) -> Callable[[], Iterator[str]]:
    """The table of one job's figures."""

    def rows() -> Iterator[str]:
        yield "| figure | unit | what it is | null when |"
        yield "|---|---|---|---|"
        for name, metric in results.METRICS[kind].items():
            yield f"| `{name}` | {metric.unit} | {metric.meaning} | {metric.undefined} |"

    return rows


PARTS: Mapping[str, Callable[[], Iterator[str]]] = {
    **{name: section(name) for name in SECTIONS},
    "indicators": indicators,
    "left_out": left_out,
    "metrics_classification": metrics("classification"),
    "metrics_regression": metrics("regression"),
    "metrics_backtesting": metrics("backtesting"),
}


def renewed(page: str) -> str:
    """The page with its generated parts as they must be."""

    def put(match: re.Match[str]) -> str:
        body = "\n".join(PARTS[match[1]]())
        return f"<!-- generated: {match[1]} -->\n\n{body}\n\n<!-- end -->"

    return re.sub(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", put, page, flags=re.DOTALL)


def main(argv: list[str]) -> int:
    """Write, or compare; returns the exit code."""
    stale = []
    for name in PAGES:
        path = FOLDER / name
        old = path.read_text(encoding="utf-8")
        new = renewed(old)
        if new != old:
            stale.append(name)
            if "--check" not in argv:
                path.write_text(new, encoding="utf-8")
    if stale and "--check" in argv:
        sys.stderr.write(f"not up to date: {', '.join(stale)}; run: python docs/make_reference.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
