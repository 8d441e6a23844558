"""The section nn_inputs: which columns the network reads, on which timeframes, and what nothing reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from ktrdr_zmq.strategy import schema
from ktrdr_zmq.strategy.document import Path
from ktrdr_zmq.strategy.problems import did_you_mean
from ktrdr_zmq.strategy.schema import Feature, FuzzySet, IndicatorUse, Reference
from ktrdr_zmq.strategy.words import in_words


class Input(NamedTuple):
    """An entry of nn_inputs; `normalization` is empty for a fuzzy set."""

    what: FuzzySet | Reference
    timeframes: tuple[str, ...]
    normalization: str = ""

    @property
    def indicator(self) -> Reference:
        """What it is computed from."""
        return self.what.indicator if isinstance(self.what, FuzzySet) else self.what

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from other inputs, wherever it is computed."""
        return ("fuzzy set", self.what.id) if isinstance(self.what, FuzzySet) else (self.what.indicator, self.what.output)

    def features(self) -> Iterator[Feature]:
        """Its columns: timeframe by timeframe, label by label."""
        for timeframe in self.timeframes:
            if isinstance(self.what, FuzzySet):
                for label, membership in self.what.labels.items():
                    yield Feature(f"{timeframe}_{self.what.id}_{label}", timeframe, self.what.indicator, membership, None)
            else:
                yield Feature(f"{timeframe}_{self.what.text}", timeframe, self.what, None, self.normalization)

    def plain(self) -> dict[str, Any]:
        """As a digest is taken of it."""
        what = {"fuzzy_set": self.what.id} if isinstance(self.what, FuzzySet) else {"raw_indicator": self.what.text}
        return {**what, "timeframes": list(self.timeframes), **({"normalization": self.normalization} if self.normalization else {})}


class Uses(NamedTuple):
    """What inputs can name; `reference` reads ``adx_14.plus_di``, and reports what is wrong with it at a path."""

    indicators: Mapping[str, IndicatorUse]
    fuzzy_sets: Mapping[str, FuzzySet]
    reference: Callable[[Any, Any, Path], Reference | None]


class InputReader:
    """Reads nn_inputs.

    Parameters
    ----------
    problem : callable
        Told the path and the text of each mistake.
    uses : Uses
    data : TrainingData or None
        None where that section is broken, so that nothing can be said about timeframes.
    """

    def __init__(self, problem: Callable[[Path, str], None], uses: Uses, data: schema.TrainingData | None) -> None:
        self._problem = problem
        self._uses = uses
        self._known = data is not None
        self._timeframes = data.timeframes if data is not None else None

    def read(self, tree: Mapping[str, Any]) -> list[Input]:
        """The inputs of a document."""
        given = tree.get("nn_inputs")
        if not isinstance(given, list) or not given:
            what = "must be a list with at least one input" if "nn_inputs" in tree else "is missing"
            self._problem(("nn_inputs",), f"{what}, for example - {{fuzzy_set: NAME, timeframes: all}}")
            return []
        found: list[Input] = []
        seen: dict[tuple[str, str, str], int] = {}
        for index, entry in enumerate(given):
            path: Path = ("nn_inputs", index)
            item = self._input(entry, tree, path)
            if item is None:
                continue
            for timeframe in item.timeframes:
                earlier = seen.setdefault((*item.key, timeframe), index)
                if earlier != index:
                    self._problem(path, f"is the same input as nn_inputs[{earlier}]" + (f" on {timeframe}" if timeframe else ""))
            found.append(item)
        self._names(found)
        return found

    def _names(self, inputs: list[Input]) -> None:
        """Features are told apart by their names."""
        names: dict[str, set[tuple[str, str]]] = {}
        for item in inputs:
            for feature in item.features():
                names.setdefault(feature.id, set()).add(item.key)
        for name in sorted(name for name, keys in names.items() if len(keys) > 1):
            self._problem(("nn_inputs",), f"two features would have the name {name}; rename a fuzzy set or a label")

    def _input(self, entry: Any, tree: Mapping[str, Any], path: Path) -> Input | None:
        if not isinstance(entry, dict) or ("fuzzy_set" in entry) == ("raw_indicator" in entry):
            self._problem(path, "must hold either fuzzy_set: or raw_indicator:")
            return None
        kind: type[schema.Section] = schema.FuzzyInput if "fuzzy_set" in entry else schema.RawInput
        try:
            parsed: Any = kind.model_validate(entry)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._problem((*path, *detail["loc"][:1]), in_words(detail, kind, detail["loc"]))
            return None
        timeframes = self._where(parsed.timeframes, (*path, "timeframes"))
        if isinstance(parsed, schema.RawInput):
            reference = self._uses.reference(parsed.raw_indicator, self._uses.indicators, (*path, "raw_indicator"))
            return Input(reference, timeframes, parsed.normalization) if reference is not None else None
        name, fuzzy_sets = parsed.fuzzy_set, self._uses.fuzzy_sets
        if name in fuzzy_sets:
            return Input(fuzzy_sets[name], timeframes)
        given = tree.get("fuzzy_sets", {})
        if isinstance(given, dict) and name not in given:
            self._problem((*path, "fuzzy_set"), f"there is no fuzzy set {name!r}{did_you_mean(name, fuzzy_sets)}")
        return None

    def _where(self, given: Any, path: Path) -> tuple[str, ...]:
        """The timeframes that an input is computed on; an empty one stands for that which a command will name."""
        own = self._timeframes.all if self._timeframes else ()
        if given == "all":
            return own or ("",)
        if self._known:
            if not own:
                self._problem(path, "must be all: neither the file nor the command names a timeframe")
            elif not given or any(name not in own for name in given):
                self._problem(path, f"must be all, or a list of some of the strategy's timeframes ({', '.join(own)}), not {given!r:.60}")
            elif len(set(given)) < len(given):
                self._problem(path, f"names a timeframe twice: {', '.join(given)}")
        return tuple(dict.fromkeys(given))

    def check_use(self, inputs: list[Input]) -> None:
        """What nothing reads has no effect."""
        used = {item.what.id for item in inputs if isinstance(item.what, FuzzySet)}
        for name in self._uses.fuzzy_sets:
            if name not in used:
                self._problem(("fuzzy_sets", name), "is not used: no entry of nn_inputs names it")
        read = {item.indicator.indicator for item in self._uses.fuzzy_sets.values()} | {item.indicator.indicator for item in inputs}
        for name in self._uses.indicators:
            if name not in read:
                self._problem(("indicators", name), "is not used: no fuzzy set and no entry of nn_inputs names it")
        if self._timeframes is None:
            return
        computed = {timeframe for item in inputs for timeframe in item.timeframes}
        for index, name in enumerate(self._timeframes.all):
            if name not in computed and name != self._timeframes.base:
                self._problem(
                    ("training_data", "timeframes", "list", index), f"{name} is not used: no entry of nn_inputs is computed on it"
                )
