"""The sections of a strategy as types. `parsing` fills them; docs/strategies.md is made of the descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ktrdr_zmq.strategy.catalogue import CATALOGUE

GRAMMAR: Final = "3.0"
CLASSES: Final = ("SELL", "HOLD", "BUY")
"""The classes of a classification, in the order of the network's outputs."""

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class Section(BaseModel):
    """What all sections share: no unknown key, no value of another type, no NaN, no change afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Symbols(Section):
    """Which symbol."""

    mode: Literal["single"] = Field("single", description="One symbol a model.")
    symbol: str = Field(
        min_length=1, max_length=32, pattern=r"^[A-Za-z0-9._^=-]+$", description="What to train on if the command names none."
    )


class Timeframes(Section):
    """Which timeframe."""

    mode: Literal["single"] = Field("single", description="One timeframe a model.")
    timeframe: str = Field(description="Bars to train on if the command names none: 1m 5m 15m 30m 1h 4h 1d 1w.")


class TrainingData(Section):
    """Which bars, where the command does not say."""

    symbols: Symbols | None = Field(None, description="The default symbol.")
    timeframes: Timeframes | None = Field(None, description="The default timeframe.")
    history_required: int = Field(0, ge=0, le=1_000_000, description="Bars that must lie before the first one used; fewer is an error.")


class Architecture(Section):
    """The network."""

    hidden_layers: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        [32, 16], min_length=1, max_length=8, description="Neurons of each hidden layer."
    )
    activation: Literal["relu", "tanh", "gelu", "silu"] = Field("relu", description="Function after each hidden layer.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Share of neurons switched off at random while training.")


class Model(Section):
    """What learns."""

    type: Literal["mlp"] = Field("mlp", description="A multi-layer perceptron on the features of one bar.")
    architecture: Architecture = Field(default_factory=Architecture, description="Its shape.")

    @property
    def window(self) -> int:
        """Bars that it reads at a time, the one that it decides at included."""
        return 1


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

    output_format: Literal["classification"] = Field("classification", description="One output each for SELL, HOLD and BUY.")
    confidence_threshold: float = Field(0.0, ge=0.0, lt=1.0, description="A BUY or SELL whose probability is below this counts as HOLD.")
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
    """What the network learns to foresee: the return of the coming bars, as a class."""

    source: Literal["forward_return"] = Field("forward_return", description="Close after `horizon` bars over this close, less one.")
    horizon: int = Field(12, ge=1, le=10_000, description="Bars to look ahead.")
    threshold: float = Field(0.5, gt=0.0, le=100.0, description="A return above this is BUY, one below its negative SELL, the rest HOLD.")
    scale: Literal["fraction", "volatility"] = Field(
        "volatility",
        description="Unit of the threshold: a fraction of the price, or the standard deviation of the last returns over the horizon.",
    )
    volatility_window: int = Field(20, ge=2, le=5000, description="Bars whose one-bar returns make that standard deviation.")

    @model_validator(mode="after")
    def _effective(self) -> Labels:
        if self.scale == "fraction" and "volatility_window" in self.model_fields_set:
            raise ValueError("volatility_window has no effect with scale: fraction")
        return self


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
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="Which optimizer; sgd has momentum 0.9.")
    scheduler: Literal["none", "cosine"] = Field("none", description="Learning rate over the epochs: constant, or a cosine down to 0.")
    weight_decay: float = Field(0.0, ge=0.0, le=10.0, description="Pull of the weights towards 0.")
    gradient_clip: float = Field(0.0, ge=0.0, le=1e6, description="Greatest norm of a step's gradient; 0: no limit.")
    class_weights: Literal["none", "balanced"] = Field("none", description="Whether rare classes count more, so that all count the same.")
    early_stopping: EarlyStopping | None = Field(None, description="When to stop early; never if absent.")
    labels: Labels = Field(default_factory=Labels, description="What to foresee.")
    data_split: DataSplit = Field(default_factory=DataSplit, description="Which samples are for what.")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="Of everything random: weights, order, dropout.")


class FuzzyInput(Section):
    """All degrees of one fuzzy set, as features."""

    fuzzy_set: str = Field(description="A key of fuzzy_sets.")
    timeframes: Literal["all"] | list[str] = Field("all", description="Where to compute it: all, or a list with the strategy's timeframe.")


class RawInput(Section):
    """An indicator itself, as a feature."""

    raw_indicator: str = Field(description="A key of indicators, with .output where it has several.")
    timeframes: Literal["all"] | list[str] = Field("all", description="Where to compute it: all, or a list with the strategy's timeframe.")
    normalization: Literal["minmax", "zscore"] = Field(
        description="Scaling, fitted on the training part: to 0 and 1, or to mean 0 and deviation 1."
    )


class IndicatorUse(NamedTuple):
    """An indicator of the strategy; `parameters` are complete."""

    id: str
    type: str
    source: str
    parameters: dict[str, float]

    @property
    def warmup(self) -> int:
        """Bars before its first value."""
        return CATALOGUE[self.type].warmup(self.parameters)


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


class RawFeature(NamedTuple):
    """An indicator's output as a feature."""

    indicator: Reference
    normalization: str


class Strategy(NamedTuple):
    """A strategy that is known to be valid.

    Attributes
    ----------
    inputs : tuple of FuzzySet or RawFeature
        What becomes features, in the order of the file.
    plain : dict
        The whole as plain values, overrides applied and defaults filled in: what a digest is taken of.
    """

    name: str
    description: str
    data: TrainingData
    indicators: dict[str, IndicatorUse]
    fuzzy_sets: dict[str, FuzzySet]
    inputs: tuple[FuzzySet | RawFeature, ...]
    model: Model
    decisions: Decisions
    risk: Risk
    training: Training
    plain: dict[str, Any]

    @property
    def symbol(self) -> str | None:
        """The symbol that the file names."""
        return self.data.symbols.symbol if self.data.symbols else None

    @property
    def timeframe(self) -> str | None:
        """The timeframe that the file names."""
        return self.data.timeframes.timeframe if self.data.timeframes else None

    @property
    def warmup(self) -> int:
        """Bars before every feature has a value."""
        used = {(item.indicator.indicator) for item in self.inputs}
        return max(self.indicators[name].warmup for name in used)

    def feature_ids(self, timeframe: str) -> list[str]:
        """Names of the features, in the order of the columns."""
        return list(self._feature_ids(timeframe))

    def _feature_ids(self, timeframe: str) -> Iterator[str]:
        for item in self.inputs:
            if isinstance(item, FuzzySet):
                yield from (f"{timeframe}_{item.id}_{label}" for label in item.labels)
            else:
                yield f"{timeframe}_{item.indicator.text}"
