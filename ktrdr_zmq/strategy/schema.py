"""The sections of a strategy as types. `parsing` fills them; docs/strategies.md is made of the descriptions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ktrdr_zmq.strategy.catalogue import CATALOGUE
from ktrdr_zmq.strategy.indicator import Value
from ktrdr_zmq.strategy.timeframes import MINUTES

GRAMMAR: Final = "3.0"
CLASSES: Final = ("SELL", "HOLD", "BUY")
"""The classes of a classification, in the order of the network's outputs."""

MOST_SYMBOLS: Final = 64


def _symbol(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._^=-]{1,32}", name):
        raise ValueError(f"{name!r:.40} is no symbol: letters, digits and . _ ^ = - only, at most 32")
    return name


SymbolName = Annotated[str, AfterValidator(_symbol)]


def _known(timeframe: str) -> str:
    if timeframe not in MINUTES:
        raise ValueError(f"there is no timeframe {timeframe!r:.40}; known: {', '.join(MINUTES)}")
    return timeframe


TimeframeName = Annotated[str, AfterValidator(_known)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


def wrong(key: str, text: str) -> PydanticCustomError:
    """What is wrong with one key of a section, found by looking at several."""
    return PydanticCustomError("wrong_key", "{text}", {"key": key, "text": text})


class Section(BaseModel):
    """What all sections share: no unknown key, no value of another type, no NaN, no change afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Symbols(Section):
    """Which symbols."""

    mode: Literal["single", "multi_symbol"] = Field(
        "single", description="`single`: the `symbol`; `multi_symbol`: one model for all of `list`."
    )
    symbol: SymbolName | None = Field(None, description="What to train on if the command names none.")
    list: Sequence[SymbolName] | None = Field(
        None, min_length=1, max_length=MOST_SYMBOLS, description="Symbols whose samples are learned from together."
    )

    @model_validator(mode="after")
    def _effective(self) -> Symbols:
        _either(self, {"single": ("symbol",), "multi_symbol": ("list",)})
        _distinct("list", self.list or ())
        return self

    @property
    def all(self) -> tuple[str, ...]:
        """The symbols, in the order of the file."""
        return tuple(self.list or (self.symbol or "",))


class Timeframes(Section):
    """Which timeframes."""

    mode: Literal["single", "multi_timeframe"] = Field(
        "single", description="`single`: `timeframe`; `multi_timeframe`: inputs may be computed on each of `list`."
    )
    timeframe: TimeframeName | None = Field(None, description="Bars to train on if the command names none: 1m 5m 15m 30m 1h 4h 1d 1w.")
    list: Sequence[TimeframeName] | None = Field(None, min_length=1, description="What `timeframes: all` of an input means, in this order.")
    base_timeframe: TimeframeName | None = Field(
        None, description="Whose bars are decided on, labelled and traded: one of `list`; the shortest of them by default."
    )

    @model_validator(mode="after")
    def _effective(self) -> Timeframes:
        _either(self, {"single": ("timeframe",), "multi_timeframe": ("list", "base_timeframe")})
        _distinct("list", self.list or ())
        if self.base not in self.all:
            raise wrong("base_timeframe", f"must be one of list ({', '.join(self.all)}), not {self.base!r}")
        return self

    @property
    def all(self) -> tuple[str, ...]:
        """The timeframes, in the order of the file."""
        return tuple(self.list or (self.timeframe or "",))

    @property
    def base(self) -> str:
        """The timeframe that is decided on."""
        return self.base_timeframe or min(self.all, key=MINUTES.__getitem__)


def _either(section: Section, keys: Mapping[str, tuple[str, ...]]) -> None:
    """Of the keys of the modes only those of the section's own mode have an effect; the first of them must be there."""
    mode = str(section.mode)  # type: ignore[attr-defined]  # the two sections have it
    for other, names in keys.items():
        for name in names:
            if other != mode and getattr(section, name) is not None:
                raise wrong(name, f"has no effect with mode: {mode}; it needs mode: {other}")
    if getattr(section, keys[mode][0]) is None:
        raise wrong(keys[mode][0], f"is missing: mode: {mode} needs it")


def _distinct(key: str, names: Sequence[str]) -> None:
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise wrong(key, f"names {twice!r} twice")


class TrainingData(Section):
    """Which bars, where the command does not say."""

    symbols: Symbols | None = Field(None, description="Which symbols.")
    timeframes: Timeframes | None = Field(None, description="Which timeframes.")
    history_required: int = Field(
        0, ge=0, le=1_000_000, description="Bars (of the base timeframe, of each symbol) before the first one used; fewer is an error."
    )


class Architecture(Section):
    """The network. Which keys are for which type: see `rules`."""

    hidden_layers: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        [32, 16], min_length=1, max_length=8, description="Neurons of each hidden layer."
    )
    activation: Literal["relu", "tanh", "gelu", "silu"] = Field("relu", description="Function after each hidden layer.")
    hidden_size: int = Field(32, ge=1, le=4096, description="Width of the state that each layer carries from bar to bar.")
    num_layers: int = Field(1, ge=1, le=8, description="Layers, each reading the states of the one below it.")
    sequence_length: int = Field(
        24, ge=2, le=1024, description="Bars that the network reads at a time, the last of them the one it decides at."
    )
    dropout: float = Field(
        0.0, ge=0.0, lt=1.0, description="Share of a hidden layer's outputs switched off at random while training, after each layer."
    )


class Model(Section):
    """What learns."""

    type: Literal["mlp", "lstm", "gru"] = Field(
        "mlp",
        description="A multi-layer perceptron on the features of one bar, or a recurrent network on those of the last `sequence_length`.",
    )
    architecture: Architecture = Field(default_factory=Architecture, description="Its shape.")

    @property
    def window(self) -> int:
        """Bars that it reads at a time, the one that it decides at included."""
        return 1 if self.type == "mlp" else self.architecture.sequence_length


class Filters(Section):
    """Which decisions are passed over."""

    min_signal_separation: int = Field(
        0, ge=0, le=100_000, description="Bars after a BUY or SELL during which any further one counts as HOLD."
    )


class CostModel(Section):
    """What trading costs, where the command does not say."""

    commission_bps: float | None = Field(None, ge=0.0, le=1000.0, description="Commission of a leg in basis points of its value.")
    slippage_bps: float | None = Field(None, ge=0.0, le=1000.0, description="Slippage of a leg in basis points of its price.")


class Decisions(Section):
    """From the network's outputs to BUY, HOLD and SELL."""

    output_format: Literal["classification", "regression"] = Field(
        "classification", description="A probability each for SELL, HOLD and BUY, or one output: the return after `horizon` bars."
    )
    confidence_threshold: float = Field(0.0, ge=0.0, lt=1.0, description="A BUY or SELL whose probability is below this counts as HOLD.")
    return_threshold: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="A predicted return above this is BUY, one below its negative SELL, the rest HOLD; a fraction of the price.",
    )
    filters: Filters = Field(default_factory=Filters, description="Which decisions are passed over.")
    cost_model: CostModel = Field(default_factory=CostModel, description="What trading costs.")


class Risk(Section):
    """What an account does with decisions."""

    position_fraction: float = Field(1.0, gt=0.0, le=1.0, description="Share of equity that a new position costs, commission included.")
    allow_short: bool = Field(True, description="Whether SELL opens a short position; otherwise it only closes a long one.")
    stop_loss: float = Field(
        0.0, ge=0.0, lt=1.0, description="Loss at which a position is closed, as a fraction of its entry price; 0: none."
    )
    take_profit: float = Field(
        0.0, ge=0.0, le=10.0, description="Profit at which a position is closed, as a fraction of its entry price; 0: none."
    )
    max_holding_bars: int = Field(0, ge=0, le=1_000_000, description="Bars after which a position is closed at the next open; 0: no limit.")


class EarlyStopping(Section):
    """When to stop before the last epoch; the best epoch's weights are kept in any case."""

    patience: Count = Field(10, description="Epochs without a better validation loss after which training stops.")
    min_delta: float = Field(0.0, ge=0.0, le=10.0, description="How much lower the validation loss must be to count as better.")


class Labels(Section):
    """What the network learns to foresee."""

    source: Literal["forward_return", "triple_barrier", "zigzag"] = Field(
        "forward_return",
        description="The close after `horizon` bars over this close, less one; which of a long and a short trade from this close "
        "reaches its target before its stop within `horizon` bars (neither or both: HOLD), the stop first where one bar touches both; or "
        "the return to the coming turning point, which is known only when the closes have moved by `reversal` away from it.",
    )
    horizon: int = Field(12, ge=1, le=10_000, description="Bars to look ahead.")
    threshold: float = Field(
        0.5,
        gt=0.0,
        le=100.0,
        description="A return above this is BUY, one below its negative SELL, the rest HOLD; with triple_barrier the distance of a target.",
    )
    stop_threshold: float | None = Field(None, gt=0.0, le=100.0, description="The distance of a stop; that of the target if absent.")
    scale: Literal["fraction", "volatility"] = Field(
        "volatility",
        description="Unit of the thresholds: a fraction of the price, or the standard deviation of the last returns over the horizon.",
    )
    volatility_window: int = Field(20, ge=2, le=5000, description="Bars whose one-bar returns make that standard deviation.")
    reversal: float = Field(
        0.01,
        gt=0.0,
        lt=1.0,
        description="Move that makes a turning point, and the least one to it for BUY or SELL; a fraction of the price.",
    )


class DataSplit(Section):
    """Shares of the samples, in the order of time."""

    train: Share = Field(0.7, description="Share that is learned from.")
    validation: Share = Field(0.15, description="Share that decides when to stop.")
    test: Share = Field(0.15, description="Share that is looked at once, at the end.")
    embargo: int = Field(0, ge=0, le=100_000, description="Bars before a part that no label of the part before it may look at.")

    @model_validator(mode="after")
    def _whole(self) -> DataSplit:
        if abs(self.train + self.validation + self.test - 1.0) > 1e-6:
            raise ValueError(f"train, validation and test must have the sum 1, not {self.train + self.validation + self.test:g}")
        return self


class Training(Section):
    """How to learn."""

    epochs: int = Field(50, ge=1, le=5000, description="Passes over the training part, at most.")
    batch_size: Count = Field(64, description="Samples a step.")
    learning_rate: float = Field(1e-3, gt=0.0, le=10.0, description="Step size of the optimizer.")
    optimizer: Literal["adam", "adamw", "nadam", "radam", "rmsprop", "sgd"] = Field(
        "adam", description="Which optimizer; sgd has momentum 0.9."
    )
    scheduler: Literal["none", "cosine", "step", "exponential", "plateau"] = Field(
        "none",
        description="Learning rate over the epochs: constant; a cosine down to 0; or less by a factor after every `scheduler_every` "
        "epochs, after every epoch, or when the validation loss has not fallen for `scheduler_patience` epochs.",
    )
    scheduler_every: Count = Field(10, description="Epochs between two steps down.")
    scheduler_factor: float = Field(0.5, gt=0.0, lt=1.0, description="What the rate is multiplied by at each step down.")
    scheduler_patience: Count = Field(5, description="Epochs without a lower validation loss after which the rate steps down.")
    warmup_epochs: int = Field(
        0, ge=0, le=5000, description="Epochs over which the rate rises evenly to what it would be; 0: it begins there."
    )
    weight_decay: float = Field(0.0, ge=0.0, le=10.0, description="Pull of the weights towards 0.")
    gradient_clip: float = Field(0.0, ge=0.0, le=1e6, description="Greatest norm of a step's gradient; 0: no limit.")
    loss: Literal["auto", "cross_entropy", "focal", "mse", "mae", "huber"] = Field(
        "auto",
        description="What is made small. Of classes: cross entropy, or focal (gamma 2: samples that are right already count less); of "
        "returns, in standard deviations of the training part: mse, mae, or huber (squares up to 1, straight beyond). auto: the first of "
        "each.",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Share of the true class's probability that all classes get alike, so that none is learned as certain.",
    )
    class_weights: Literal["none", "balanced"] = Field("none", description="Whether rare classes count more, so that all count the same.")
    early_stopping: EarlyStopping | None = Field(None, description="When to stop early; never if absent.")
    labels: Labels = Field(default_factory=Labels, description="What to foresee.")
    data_split: DataSplit = Field(default_factory=DataSplit, description="Which samples are for what.")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="Of everything random: weights, order, dropout.")


_WHERE: Final = "Timeframes to compute it on: `all` of the strategy's, or a list of some of them."


class FuzzyInput(Section):
    """All degrees of one fuzzy set, as features."""

    fuzzy_set: str = Field(description="A key of fuzzy_sets.")
    timeframes: Literal["all"] | list[str] = Field("all", description=_WHERE)


class RawInput(Section):
    """An indicator itself, as a feature."""

    raw_indicator: str = Field(description="A key of indicators, with .output where it has several.")
    timeframes: Literal["all"] | list[str] = Field("all", description=_WHERE)
    normalization: Literal["minmax", "zscore"] = Field(
        description="Scaling, fitted on the training part: to 0 and 1, or to mean 0 and deviation 1."
    )


class IndicatorUse(NamedTuple):
    """An indicator of the strategy; `parameters` are complete."""

    id: str
    type: str
    source: str
    parameters: dict[str, Value]

    @property
    def warmup(self) -> int:
        """Bars before its first value."""
        return CATALOGUE[self.type].warmup(self.parameters)

    @property
    def unstable(self) -> bool:
        """Whether more history than that changes its values."""
        return CATALOGUE[self.type].is_unstable(self.parameters)


class Reference(NamedTuple):
    """One output of one indicator."""

    indicator: str
    output: str
    text: str


class Membership(NamedTuple):
    """The shape of one label; see ``ktrdr_worker.trading.fuzzy``."""

    shape: str
    parameters: tuple[float, ...]


class FuzzySet(NamedTuple):
    """A fuzzy set: the indicator it speaks of, and its labels in the order of the file."""

    id: str
    indicator: Reference
    labels: dict[str, Membership]


class Feature(NamedTuple):
    """A column of what the network reads.

    Attributes
    ----------
    id : str
        ``{timeframe}_{fuzzy_set}_{label}`` or ``{timeframe}_{indicator}``.
    timeframe : str
        On whose bars it is computed.
    indicator : Reference
    membership : Membership or None
        What makes a degree of the indicator's value.
    normalization : str or None
        How the value itself is scaled, where there is no membership.
    """

    id: str
    timeframe: str
    indicator: Reference
    membership: Membership | None
    normalization: str | None


class Strategy(NamedTuple):
    """A strategy that is known to be valid.

    Attributes
    ----------
    features : tuple of Feature
        What the network reads, in the order nn_inputs, timeframes, labels; empty where no timeframe is known yet.
    plain : dict
        The whole as plain values, overrides applied and defaults filled in: what a digest is taken of.
    """

    name: str
    description: str
    data: TrainingData
    indicators: dict[str, IndicatorUse]
    fuzzy_sets: dict[str, FuzzySet]
    features: tuple[Feature, ...]
    model: Model
    decisions: Decisions
    risk: Risk
    training: Training
    plain: dict[str, Any]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that it is for; none if neither file nor command name one."""
        return self.data.symbols.all if self.data.symbols else ()

    @property
    def timeframes(self) -> tuple[str, ...]:
        """The timeframes that it reads; none if neither file nor command name one."""
        return self.data.timeframes.all if self.data.timeframes else ()

    @property
    def base(self) -> str:
        """The timeframe whose bars are decided on; empty if none is known yet."""
        return self.data.timeframes.base if self.data.timeframes else ""

    @property
    def regression(self) -> bool:
        """Whether the network predicts a return, and not classes."""
        return self.decisions.output_format == "regression"

    @property
    def classes(self) -> tuple[str, ...]:
        """What the network tells apart; nothing in a regression."""
        return () if self.regression else CLASSES

    @property
    def feature_ids(self) -> list[str]:
        """Names of the features, in the order of the columns."""
        return [feature.id for feature in self.features]

    def warmup(self, timeframe: str) -> int:
        """Bars of a timeframe before all features that are computed on it have a value."""
        used = {feature.indicator.indicator for feature in self.features if feature.timeframe == timeframe}
        return max((self.indicators[name].warmup for name in used), default=0)
