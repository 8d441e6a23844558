"""Which keys have an effect beside which others, as data. Parsing refuses the rest, digests leave it out, the documentation shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

RECURRENT: Final = ("lstm", "gru")


class Rule(NamedTuple):
    """A key, or some `values` of it, that has an effect only where each key of `when` has one of the values beside it."""

    key: str
    when: Mapping[str, tuple[str, ...]]
    values: tuple[str, ...] = ()


_TYPE, _FORMAT, _LABELS = "model.type", "decisions.output_format", "training.labels.source"
_CLASSES, _RETURNS = {_FORMAT: ("classification",)}, {_FORMAT: ("regression",)}

RULES: Final = (
    Rule("model.architecture.hidden_layers", {_TYPE: ("mlp",)}),
    Rule("model.architecture.activation", {_TYPE: ("mlp",)}),
    Rule("model.architecture.hidden_size", {_TYPE: RECURRENT}),
    Rule("model.architecture.num_layers", {_TYPE: RECURRENT}),
    Rule("model.architecture.sequence_length", {_TYPE: RECURRENT}),
    Rule("decisions.confidence_threshold", _CLASSES),
    Rule("decisions.return_threshold", _RETURNS),
    Rule("training.scheduler_every", {"training.scheduler": ("step",)}),
    Rule("training.scheduler_factor", {"training.scheduler": ("step", "exponential", "plateau")}),
    Rule("training.scheduler_patience", {"training.scheduler": ("plateau",)}),
    Rule("training.loss", _CLASSES, ("cross_entropy", "focal")),
    Rule("training.loss", _RETURNS, ("mse", "mae", "huber")),
    Rule("training.label_smoothing", {**_CLASSES, "training.loss": ("auto", "cross_entropy")}),
    Rule("training.class_weights", _CLASSES),
    Rule(_LABELS, _CLASSES, ("triple_barrier", "zigzag")),
    Rule("training.labels.horizon", {_LABELS: ("forward_return", "triple_barrier")}),
    Rule("training.labels.threshold", {**_CLASSES, _LABELS: ("forward_return", "triple_barrier")}),
    Rule("training.labels.stop_threshold", {_LABELS: ("triple_barrier",)}),
    Rule("training.labels.scale", {**_CLASSES, _LABELS: ("forward_return", "triple_barrier")}),
    Rule(
        "training.labels.volatility_window",
        {**_CLASSES, _LABELS: ("forward_return", "triple_barrier"), "training.labels.scale": ("volatility",)},
    ),
    Rule("training.labels.reversal", {_LABELS: ("zigzag",)}),
)


def broken(sections: Mapping[str, Any]) -> Iterator[tuple[Rule, str, str]]:
    """Rules that do not hold in these sections, each with the key that stands against it and that key's value."""
    for rule in RULES:
        if {key.partition(".")[0] for key in (rule.key, *rule.when)} <= set(sections):
            if rule.values and value_at(sections, rule.key) not in rule.values:
                continue
            for key, allowed in rule.when.items():
                actual = value_at(sections, key)
                if actual not in allowed:
                    yield rule, key, str(actual)
                    break


def value_at(sections: Mapping[str, Any], key: str) -> Any:
    """The value of a key path."""
    first, *rest = key.split(".")
    value = sections[first]
    for part in rest:
        value = getattr(value, part)
    return value


def effective(plain: dict[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """The sections as plain values without the keys that have no effect beside the others."""
    for rule, _, _ in broken(sections):
        *path, last = rule.key.split(".")
        place = plain
        for part in path:
            place = place[part]
        place.pop(last, None)
    return plain
