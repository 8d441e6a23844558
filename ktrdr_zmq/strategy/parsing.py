"""From YAML to a `Strategy`: all mistakes at once, each with its file, line and key path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from ktrdr_zmq.strategy import schema
from ktrdr_zmq.strategy.catalogue import CATALOGUE, SOURCES, Parameter
from ktrdr_zmq.strategy.document import Document, Path, dotted
from ktrdr_zmq.strategy.problems import Problem, StrategyInvalid, did_you_mean
from ktrdr_zmq.strategy.schema import FuzzySet, IndicatorUse, Membership, RawFeature, Reference, Strategy
from ktrdr_zmq.strategy.shapes import CORNERS, SHAPES, what_is_wrong
from ktrdr_zmq.strategy.timeframes import MINUTES

SECTIONS: Final[Mapping[str, type[schema.Section]]] = {
    "training_data": schema.TrainingData,
    "model": schema.Model,
    "decisions": schema.Decisions,
    "risk": schema.Risk,
    "training": schema.Training,
}
TOP: Final = (
    "name",
    "version",
    "description",
    "training_data",
    "indicators",
    "fuzzy_sets",
    "nn_inputs",
    "model",
    "decisions",
    "risk",
    "training",
)
ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")

LARGEST_NUMBER: Final = 1e15
_MISSING: Final = object()


def parse_strategy(text: str, source: str, overrides: Mapping[str, Any] | None = None) -> Strategy:
    """Read a strategy.

    Parameters
    ----------
    text : str
        YAML.
    source : str
        Where it is from, for messages.
    overrides : mapping, optional
        Values by key path, for example ``{"training.epochs": 5}``.

    Raises
    ------
    StrategyInvalid
        With every mistake.
    """
    document = Document(text, source)
    problems = [problem for key, value in (overrides or {}).items() if (problem := document.override(str(key), value))]
    reader = _Reader(document)
    strategy = reader.read()
    problems += reader.problems
    if problems or strategy is None:
        raise StrategyInvalid(source, sorted(problems, key=_order))
    return strategy


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Check what is to be set for a backtest, without the strategy: only decisions and risk can be; the rest is part of the model.

    Raises
    ------
    StrategyInvalid
        With every mistake.
    """
    document = Document("decisions: {}\nrisk: {}\n", "--set")
    problems = []
    for key, value in overrides.items():
        if str(key).partition(".")[0] not in ("decisions", "risk"):
            problems.append(Problem(f"--set {key}", str(key), "is part of the trained model; a backtest can set decisions.* and risk.*"))
        elif problem := document.override(str(key), value):
            problems.append(problem)
    reader = _Reader(document)
    for name in ("decisions", "risk"):
        reader.section(name, SECTIONS[name])
    if problems or reader.problems:
        raise StrategyInvalid("backtest", [*problems, *reader.problems])


def _order(problem: Problem) -> tuple[int, str]:
    line = problem.where.rpartition(":")[2]
    return (int(line) if line.isdigit() else 0, problem.path)


class _Reader:
    """Collects problems while it turns a document into a strategy."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._tree = document.tree
        self.problems: list[Problem] = []

    def _problem(self, path: Path, message: str) -> None:
        self.problems.append(Problem(self._document.where(path), dotted(path), message))

    def read(self) -> Strategy | None:
        """The strategy; None if there are problems."""
        for key in self._tree:
            if key not in TOP:
                self._problem((key,), f"unknown section{did_you_mean(key, TOP)}")
        name = self._head()
        sections = {key: self.section(key, kind) for key, kind in SECTIONS.items()}
        self._timeframe(sections["training_data"])
        indicators = self._indicators()
        fuzzy_sets = self._fuzzy_sets(indicators)
        inputs = self._inputs(indicators, fuzzy_sets, sections["training_data"])
        if not self.problems:
            self._unused(indicators, fuzzy_sets, inputs)
        if self.problems:
            return None
        plain = {
            "name": name, "version": schema.GRAMMAR,
            "indicators": {key: {"type": use.type, "source": use.source, **use.parameters} for key, use in indicators.items()},
            "fuzzy_sets": {
                key: {"indicator": item.indicator.text, **{label: [m.shape, *m.parameters] for label, m in item.labels.items()}}
                for key, item in fuzzy_sets.items()
            },
            "nn_inputs": [
                {"fuzzy_set": item.id}
                if isinstance(item, FuzzySet)
                else {"raw_indicator": item.indicator.text, "normalization": item.normalization}
                for item in inputs
            ],
            **{key: section.model_dump(mode="json") for key, section in sections.items()},
        }  # fmt: skip
        made: Any = sections
        return Strategy(
            name, str(self._tree.get("description") or ""), made["training_data"], indicators, fuzzy_sets, tuple(inputs), made["model"],
            made["decisions"], made["risk"], made["training"], plain,
        )  # fmt: skip

    # ------------------------------------------------------------ head and sections

    def _head(self) -> str:
        name = self._tree.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            self._problem(("name",), "must be a name: a letter, then letters, digits, dots, dashes and underscores, at most 64")
        version = self._tree.get("version")
        if version != schema.GRAMMAR:
            self._problem(("version",), f'must be "{schema.GRAMMAR}" (in quotes), the version of this grammar, not {version!r}')
        description = self._tree.get("description")
        if description is not None and not isinstance(description, str):
            self._problem(("description",), "must be text")
        return str(name)

    def section(self, key: str, kind: type[schema.Section]) -> schema.Section:
        """A section as its type; defaults where there are problems."""
        given = self._tree.get(key, _MISSING)
        if given is None or (given is not _MISSING and not isinstance(given, dict)):
            self._problem((key,), "must hold keys")
            given = _MISSING
        try:
            return kind.model_validate({} if given is _MISSING else given)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path: Path = (key, *detail["loc"])
                self._problem(path, _words(detail, kind, detail["loc"]))
            return kind.model_construct()

    def _timeframe(self, data: Any) -> None:
        given = getattr(getattr(data, "timeframes", None), "timeframe", None)
        if given is not None and given not in MINUTES:
            self._problem(("training_data", "timeframes", "timeframe"), f"there is no timeframe {given!r}; known: {', '.join(MINUTES)}")

    # ------------------------------------------------------------ indicators

    def _mapping(self, key: str) -> dict[str, Any]:
        given = self._tree.get(key, _MISSING)
        if given is _MISSING:
            self._problem((key,), "is missing")
        elif not isinstance(given, dict) or not given:
            self._problem((key,), "must hold at least one entry")
        else:
            return given
        return {}

    def _indicators(self) -> dict[str, IndicatorUse]:
        found = {}
        for name, entry in self._mapping("indicators").items():
            path: Path = ("indicators", name)
            if not ID.fullmatch(name):
                self._problem(path, "is no id: a letter, then letters, digits and underscores, at most 64")
            if not isinstance(entry, dict):
                self._problem(path, "must hold type: and parameters, for example {type: rsi, period: 14}")
                continue
            use = self._indicator(name, entry, path)
            if use is not None:
                found[name] = use
        return found

    def _indicator(self, name: str, entry: dict[str, Any], path: Path) -> IndicatorUse | None:
        kind = entry.get("type")
        if not isinstance(kind, str) or kind not in CATALOGUE:
            what = "type is missing" if kind is None else f"there is no indicator {kind!r}"
            self._problem((*path, "type"), f"{what}{did_you_mean(str(kind), CATALOGUE)}")
            return None
        known = CATALOGUE[kind]
        words = ("type", *(("source",) if known.sourced else ()), *known.parameters)
        for key in entry:
            if key not in words:
                self._problem((*path, key), f"{kind} has no such parameter{did_you_mean(key, words)}")
        source = entry.get("source", "close")
        if known.sourced and (not isinstance(source, str) or source not in SOURCES):
            self._problem((*path, "source"), f"there is no source {source!r}{did_you_mean(str(source), SOURCES)}")
        values = {
            key: self._number(entry.get(key, parameter.default), parameter, (*path, key)) for key, parameter in known.parameters.items()
        }
        for smaller, larger in known.ordered:
            if values[smaller] >= values[larger]:
                self._problem((*path, smaller), f"must be below {larger}, which is {values[larger]:g}")
        return IndicatorUse(name, kind, str(source) if known.sourced else "", values)

    def _number(self, value: Any, parameter: Parameter, path: Path) -> float:
        if not _is_number(value):
            self._problem(path, f"must be a number, not {value!r:.60}")
            return parameter.default
        if parameter.whole and value != int(value):
            self._problem(path, f"must be a whole number, not {value:g}")
        if not parameter.low <= value <= parameter.high:
            self._problem(path, f"must be between {parameter.low:g} and {parameter.high:g}, not {value:g}")
            return parameter.default
        return int(value) if parameter.whole else float(value)

    def _reference(self, text: Any, indicators: dict[str, IndicatorUse], path: Path) -> Reference | None:
        """``rsi_14`` or ``adx_14.plus_di``."""
        if not isinstance(text, str):
            self._problem(path, "must name an indicator, for example rsi_14 or adx_14.plus_di")
            return None
        name, dot, output = text.partition(".")
        if name not in indicators:
            if isinstance(self._tree.get("indicators"), dict) and name not in self._tree["indicators"]:
                self._problem(path, f"there is no indicator {name!r}{did_you_mean(name, indicators)}")
            return None
        known = CATALOGUE[indicators[name].type]
        if not dot and not known.bare:
            self._problem(path, f"{name} has several outputs; say which: {', '.join(f'{name}.{o}' for o in known.outputs)}")
            return None
        if dot and output not in known.outputs:
            self._problem(path, f"{indicators[name].type} has no output {output!r}{did_you_mean(output, known.outputs)}")
            return None
        return Reference(name, output or known.outputs[0], text)

    # ------------------------------------------------------------ fuzzy sets

    def _fuzzy_sets(self, indicators: dict[str, IndicatorUse]) -> dict[str, FuzzySet]:
        if "fuzzy_sets" not in self._tree:
            return {}
        found = {}
        for name, entry in self._mapping("fuzzy_sets").items():
            path: Path = ("fuzzy_sets", name)
            if not ID.fullmatch(name):
                self._problem(path, "is no id: a letter, then letters, digits and underscores, at most 64")
            if not isinstance(entry, dict):
                self._problem(path, "must hold indicator: and labels, for example {indicator: rsi_14, low: [0, 25, 40]}")
                continue
            reference = self._reference(entry.get("indicator"), indicators, (*path, "indicator"))
            labels = {}
            for label, shape in entry.items():
                if label == "indicator":
                    continue
                if not ID.fullmatch(label):
                    self._problem((*path, label), "is no label: a letter, then letters, digits and underscores, at most 64")
                membership = self._membership(shape, (*path, label))
                if membership is not None:
                    labels[label] = membership
            if not any(label != "indicator" for label in entry):
                self._problem(path, "has no labels, for example low: [0, 25, 40]")
            if reference is not None:
                found[name] = FuzzySet(name, reference, labels)
        return found

    def _membership(self, value: Any, path: Path) -> Membership | None:
        if isinstance(value, list):
            shape = CORNERS.get(len(value), "")
            numbers: Any = value
            if not shape:
                self._problem(path, f"must be 3 corners (triangle) or 4 (trapezoid), not {len(value)}")
                return None
        elif isinstance(value, dict):
            shape, numbers = str(value.get("type")), value.get("parameters")
            for key in value:
                if key not in ("type", "parameters"):
                    self._problem((*path, key), f"unknown key{did_you_mean(key, ('type', 'parameters'))}")
            if shape not in SHAPES:
                self._problem((*path, "type"), f"there is no membership function {shape!r}{did_you_mean(shape, SHAPES)}")
                return None
            if not isinstance(numbers, list) or len(numbers) != len(SHAPES[shape]):
                self._problem((*path, "parameters"), f"{shape} takes a list of {len(SHAPES[shape])} numbers: [{', '.join(SHAPES[shape])}]")
                return None
        else:
            self._problem(path, "must be a list of corners or {type: gaussian, parameters: [mean, sigma]}")
            return None
        if not all(map(_is_number, numbers)):
            self._problem(path, "must hold numbers only")
            return None
        wrong = what_is_wrong(shape, numbers)
        if wrong is not None:
            self._problem(path, wrong)
            return None
        return Membership(shape, tuple(float(n) for n in numbers))

    # ------------------------------------------------------------ inputs

    def _inputs(self, indicators: dict[str, IndicatorUse], fuzzy_sets: dict[str, FuzzySet], data: Any) -> list[FuzzySet | RawFeature]:
        given = self._tree.get("nn_inputs", _MISSING)
        if given is _MISSING or not isinstance(given, list) or not given:
            what = "is missing" if given is _MISSING else "must be a list with at least one input"
            self._problem(("nn_inputs",), f"{what}, for example - {{fuzzy_set: NAME, timeframes: all}}")
            return []
        found: list[FuzzySet | RawFeature] = []
        seen: dict[tuple[str, str], int] = {}
        for index, entry in enumerate(given):
            path: Path = ("nn_inputs", index)
            if not isinstance(entry, dict) or ("fuzzy_set" in entry) == ("raw_indicator" in entry):
                self._problem(path, "must hold either fuzzy_set: or raw_indicator:")
                continue
            kind: type[schema.Section] = schema.FuzzyInput if "fuzzy_set" in entry else schema.RawInput
            try:
                parsed: Any = kind.model_validate(entry)
            except ValidationError as error:
                for detail in error.errors(include_url=False):
                    self._problem((*path, *detail["loc"][:1]), _words(detail, kind, detail["loc"]))
                continue
            self._where(parsed.timeframes, data, (*path, "timeframes"))
            item = self._input(parsed, indicators, fuzzy_sets, path)
            if item is None:
                continue
            key = ("fuzzy set", item.id) if isinstance(item, FuzzySet) else (item.indicator.indicator, item.indicator.output)
            if key in seen:
                self._problem(path, f"is the same input as nn_inputs[{seen[key]}]")
            seen[key] = index
            found.append(item)
        self._names(found)
        return found

    def _names(self, inputs: list[FuzzySet | RawFeature]) -> None:
        """Features are told apart by their names."""
        names = [f"{item.id}_{label}" for item in inputs if isinstance(item, FuzzySet) for label in item.labels]
        names += [item.indicator.text for item in inputs if isinstance(item, RawFeature)]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._problem(("nn_inputs",), f"two features would have the name {name}; rename a fuzzy set or a label")

    def _unused(self, indicators: dict[str, IndicatorUse], fuzzy_sets: dict[str, FuzzySet], inputs: list[FuzzySet | RawFeature]) -> None:
        """What nothing reads has no effect."""
        used = {item.id for item in inputs if isinstance(item, FuzzySet)}
        for name in fuzzy_sets:
            if name not in used:
                self._problem(("fuzzy_sets", name), "is not used: no entry of nn_inputs names it")
        read = {item.indicator.indicator for item in inputs} | {item.indicator.indicator for item in fuzzy_sets.values()}
        for name in indicators:
            if name not in read:
                self._problem(("indicators", name), "is not used: no fuzzy set and no entry of nn_inputs names it")

    def _input(
        self, parsed: Any, indicators: dict[str, IndicatorUse], fuzzy_sets: dict[str, FuzzySet], path: Path
    ) -> FuzzySet | RawFeature | None:
        if isinstance(parsed, schema.RawInput):
            reference = self._reference(parsed.raw_indicator, indicators, (*path, "raw_indicator"))
            return RawFeature(reference, parsed.normalization) if reference is not None else None
        if parsed.fuzzy_set in fuzzy_sets:
            return fuzzy_sets[parsed.fuzzy_set]
        given = self._tree.get("fuzzy_sets", {})
        if isinstance(given, dict) and parsed.fuzzy_set not in given:
            self._problem((*path, "fuzzy_set"), f"there is no fuzzy set {parsed.fuzzy_set!r}{did_you_mean(parsed.fuzzy_set, fuzzy_sets)}")
        return None

    def _where(self, timeframes: Any, data: Any, path: Path) -> None:
        """An input may only be computed on the one timeframe that the strategy has."""
        own = getattr(getattr(data, "timeframes", None), "timeframe", None)
        if isinstance(timeframes, list) and timeframes != [own]:
            self._problem(
                path, f"must be all or [{own}]: a strategy has one timeframe" if own else "must be all: the file names no timeframe"
            )


def _is_number(value: Any) -> bool:
    """A number that can be computed with: not true or false, not infinite, not of hundreds of digits."""
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) < LARGEST_NUMBER


# ---------------------------------------------------------------- pydantic's words and ours


def _words(detail: Any, kind: type[BaseModel], loc: tuple[str | int, ...]) -> str:  # noqa: PLR0911  # a table of texts
    """What pydantic found, in words for people."""
    context = detail.get("ctx", {})
    given = detail.get("input")
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key{did_you_mean(str(loc[-1]), _keys(kind, loc[:-1]))}"
        case "missing":
            return "is missing"
        case "literal_error":
            return f"must be {context['expected']}, not {given!r:.60}"
        case "value_error":
            return str(context.get("error", detail["msg"]))
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            word = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below", "less_than_equal": "at most"}[
                detail["type"]
            ]
            limit = next(iter(context.values()))
            return f"must be {word} {limit:g}, not {str(given)[:20]}"
        case "int_type" | "int_from_float":
            return f"must be a whole number, not {given!r:.60}"
        case "float_type" | "finite_number":
            return f"must be a number, not {given!r:.60}"
        case "bool_type":
            return f"must be true or false, not {given!r:.60}"
        case "string_type":
            return f"must be text, not {given!r:.60}"
        case "list_type":
            return f"must be a list, not {given!r:.60}"
        case "model_type" | "dict_type":
            return "must hold keys"
        case "too_short":
            return "must not be empty"
    message = str(detail["msg"])
    return message[:1].lower() + message[1:]


def _keys(kind: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that a section knows."""
    current: Any = kind
    for part in loc:
        field = current.model_fields.get(part) if isinstance(part, str) else None
        if field is None:
            return []
        options = [
            option
            for option in (field.annotation, *get_args(field.annotation))
            if isinstance(option, type) and issubclass(option, BaseModel)
        ]
        if not options:
            return []
        current = options[0]
    return list(current.model_fields)
