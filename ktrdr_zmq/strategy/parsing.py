"""From YAML to a `Strategy`: all mistakes at once, each with its file, line and key path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from ktrdr_zmq.strategy import schema
from ktrdr_zmq.strategy.catalogue import CATALOGUE, meant_by
from ktrdr_zmq.strategy.document import Document, Path, dotted
from ktrdr_zmq.strategy.indicator import SOURCES, Parameter, Value
from ktrdr_zmq.strategy.inputs import InputReader, Uses
from ktrdr_zmq.strategy.problems import Problem, StrategyInvalid, did_you_mean
from ktrdr_zmq.strategy.rules import broken, effective, value_at
from ktrdr_zmq.strategy.schema import FuzzySet, IndicatorUse, Membership, Reference, Strategy
from ktrdr_zmq.strategy.shapes import CORNERS, SHAPES, what_is_wrong
from ktrdr_zmq.strategy.words import in_words

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
        if str(key).partition(".")[0] not in ("decisions", "risk") or key == "decisions.output_format":
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
        self._broken: set[str] = set()
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
        self._without_effect({key: section for key, section in sections.items() if key not in self._broken})
        indicators = self._indicators()
        fuzzy_sets = self._fuzzy_sets(indicators)
        data: Any = sections["training_data"]
        uses = Uses(indicators, fuzzy_sets, self._reference)
        reader = InputReader(self._problem, uses, None if "training_data" in self._broken else data)
        inputs = reader.read(self._tree)
        if not self.problems:
            reader.check_use(inputs)
        if self.problems:
            return None
        plain = {
            "name": name, "version": schema.GRAMMAR,
            "indicators": {key: {"type": use.type, "source": use.source, **use.parameters} for key, use in indicators.items()},
            "fuzzy_sets": {
                key: {"indicator": item.indicator.text, **{label: [m.shape, *m.parameters] for label, m in item.labels.items()}}
                for key, item in fuzzy_sets.items()
            },
            "nn_inputs": [item.plain() for item in inputs],
            **effective({key: section.model_dump(mode="json") for key, section in sections.items()}, sections),
        }  # fmt: skip
        made: Any = sections
        features = tuple(feature for item in inputs for feature in item.features()) if made["training_data"].timeframes else ()
        return Strategy(
            name, str(self._tree.get("description") or ""), made["training_data"], indicators, fuzzy_sets, features, made["model"],
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
                path: Path = (key, *detail["loc"], *((detail["ctx"]["key"],) if detail["type"] == "wrong_key" else ()))
                self._problem(path, in_words(detail, kind, detail["loc"]))
            self._broken.add(key)
            return kind.model_construct()

    def _without_effect(self, sections: Mapping[str, schema.Section]) -> None:
        """Keys of the file that have no effect beside the others."""
        for rule, key, actual in broken(sections):
            path = tuple(rule.key.split("."))
            if self._given(path):
                words = " or ".join(rule.when[key])
                value = f"{value_at(sections, rule.key)} has" if rule.values else "has"
                self._problem(path, f"{value} an effect only with {key}: {words}, which is {actual} here")

    def _given(self, path: Path) -> bool:
        place: Any = self._tree
        for part in path:
            if not isinstance(place, dict) or part not in place:
                return False
            place = place[part]
        return True

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
            meant = meant_by(str(kind))
            self._problem((*path, "type"), f"{what}; did you mean {meant}?" if meant else f"{what}{did_you_mean(str(kind), CATALOGUE)}")
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
            key: self._value(entry.get(key, parameter.default), parameter, (*path, key)) for key, parameter in known.parameters.items()
        }
        for smaller, larger in known.ordered:
            if float(values[smaller]) >= float(values[larger]):
                self._problem((*path, smaller), f"must be below {larger}, which is {values[larger]:g}")
        return IndicatorUse(name, kind, str(source) if known.sourced else "", values)

    def _value(self, value: Any, parameter: Parameter, path: Path) -> Value:
        if parameter.choices:
            if not isinstance(value, str) or value not in parameter.choices:
                self._problem(path, f"must be one of {', '.join(parameter.choices)}, not {value!r:.60}")
                return parameter.default
            return value
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


def _is_number(value: Any) -> bool:
    """A number that can be computed with: not true or false, not infinite, not of hundreds of digits."""
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) < LARGEST_NUMBER
