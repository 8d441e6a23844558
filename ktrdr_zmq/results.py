"""What the built-in jobs return: one typed schema for the worker that writes it and for everybody who reads it.

Names, units and the rule of which figure may be undefined live here and nowhere else; ``docs/metrics.md`` is compared with
``METRICS`` by a test. An undefined figure is ``None``, never 0, NaN or infinity. A field that is missing is an error, and a
document of a newer schema is refused by name. Nothing here imports NumPy.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, cast

import msgspec

from ktrdr_zmq.errors import NewerSchema, PayloadError

SCHEMA: Final = 1

CIRCUMSTANCES: Final = frozenset({"device", "digest", "duration_s", "fingerprint", "threads"})
"""Fields of a result that say where and how it was computed, and not what came out: they are no part of its digest."""


class Metric(msgspec.Struct, frozen=True):
    """What a figure means.

    Attributes
    ----------
    unit : str
        ``fraction`` (0.05 is 5 %), ``ratio``, ``currency`` (of the account), ``days`` (calendar), ``bars``, ``count``, ``nats``,
        ``squared`` (the square of a fraction).
    meaning : str
        One line, the same as in docs/metrics.md.
    undefined : str
        When the figure is ``None``; empty where it always has a value.
    better : int
        1: higher is better, -1: lower is better, 0: neither.
    """

    unit: str
    meaning: str
    undefined: str = ""
    better: int = 0


CLASSIFICATION_METRICS: Final[Mapping[str, Metric]] = {
    "samples": Metric("count", "Samples of the part that were scored."),
    "accuracy": Metric("fraction", "Samples whose most probable class is the true one.", better=1),
    "balanced_accuracy": Metric("fraction", "Mean of the recalls of the classes that occur in the part.", better=1),
    "macro_f1": Metric("fraction", "Mean of the F1 scores of the classes that occur in the part or were predicted.", better=1),
    "mcc": Metric(
        "ratio",
        "Matthews correlation coefficient for several classes (Gorodkin 2004), -1 to 1.",
        "only one class is true, or only one was predicted",
        better=1,
    ),
    "log_loss": Metric("nats", "Mean negative logarithm of the probability given to the true class.", better=-1),
}

REGRESSION_METRICS: Final[Mapping[str, Metric]] = {
    "samples": Metric("count", "Samples of the part that were scored."),
    "mse": Metric("squared", "Mean of the squared errors; returns are fractions.", better=-1),
    "mae": Metric("fraction", "Mean size of the errors.", better=-1),
    "r2": Metric(
        "ratio",
        "One less the sum of squared errors over that of always predicting the mean return of the training part; 0 is no better, "
        "1 is without error.",
        "every true return is that mean",
        better=1,
    ),
    "ic": Metric(
        "ratio", "Information coefficient: Pearson's correlation of predicted and true returns.", "either of them does not vary", better=1
    ),
    "rank_ic": Metric("ratio", "Spearman's correlation of predicted and true returns.", "either of them does not vary", better=1),
    "directional_accuracy": Metric(
        "fraction", "Samples whose predicted return has the sign of the true one, of those whose true return is not 0.",
        "every true return is 0", better=1,
    ),
}  # fmt: skip

BACKTEST_METRICS: Final[Mapping[str, Metric]] = {
    "duration_days": Metric("days", "From the open of the first bar of the window to the close of its last."),
    "exposure_time": Metric("fraction", "Bars in which a position was held, of all bars of the window."),
    "equity_final": Metric("currency", "Equity after the last bar, with every position closed.", better=1),
    "equity_peak": Metric("currency", "Highest equity at a bar's close, the starting capital included.", better=1),
    "total_return": Metric("fraction", "Final equity over starting capital, less one.", better=1),
    "buy_hold_return": Metric("fraction", "Last close over the close of the first bar, less one; without costs."),
    "annual_return": Metric(
        "fraction",
        "Growth of equity raised to (periods per year / number of session returns), less one.",
        "final equity is not positive",
        better=1,
    ),
    "cagr": Metric("fraction", "Growth of equity raised to (365.25 / duration_days), less one.", "final equity is not positive", better=1),
    "annual_volatility": Metric(
        "fraction",
        "Standard deviation (ddof 1) of session returns times the root of the periods per year.",
        "fewer than two session returns",
        better=-1,
    ),
    "sharpe_ratio": Metric(
        "ratio",
        "Mean over standard deviation (ddof 1) of session returns, times the root of the periods per year; risk-free rate 0.",
        "fewer than two session returns, or they do not vary",
        better=1,
    ),
    "sortino_ratio": Metric(
        "ratio",
        "Mean session return over the root of the mean of squared negative ones, times the root of the periods per year.",
        "fewer than two session returns, or none is negative",
        better=1,
    ),
    "calmar_ratio": Metric("ratio", "annual_return over the size of max_drawdown.", "there was no drawdown, or no annual_return", better=1),
    "max_drawdown": Metric("fraction", "Deepest fall of equity at a bar's close below its highest before; zero or negative.", better=1),
    "avg_drawdown": Metric(
        "fraction", "Mean depth of the drawdowns, each from a peak to its recovery or the end.", "there was no drawdown", better=1
    ),
    "max_drawdown_days": Metric("days", "Longest drawdown, from its peak to its recovery or the end.", "there was no drawdown", -1),
    "avg_drawdown_days": Metric("days", "Mean length of the drawdowns.", "there was no drawdown", -1),
    "trades": Metric("count", "Closed trades, one that was closed by the end of the window included."),
    "long_trades": Metric("count", "Trades that bought first."),
    "short_trades": Metric("count", "Trades that sold first."),
    "win_rate": Metric("fraction", "Trades with a profit after costs, of all trades.", "no trades", better=1),
    "best_trade": Metric("fraction", "Highest PnL of a trade over its value at entry.", "no trades", better=1),
    "worst_trade": Metric("fraction", "Lowest PnL of a trade over its value at entry.", "no trades", better=1),
    "avg_trade": Metric("fraction", "Mean PnL of the trades over their values at entry.", "no trades", better=1),
    "avg_bars_held": Metric("bars", "Mean number of bars in which a trade was open.", "no trades"),
    "max_bars_held": Metric("bars", "Greatest number of bars in which a trade was open.", "no trades"),
    "profit_factor": Metric("ratio", "Sum of profits over the size of the sum of losses, after costs.", "no trade lost", better=1),
    "expectancy": Metric("currency", "Mean PnL of a trade.", "no trades", better=1),
    "sqn": Metric(
        "ratio",
        "System quality number: root of the number of trades, times mean over standard deviation (ddof 1) of their PnL.",
        "fewer than two trades, or their PnL does not vary",
        better=1,
    ),
    "kelly": Metric(
        "fraction",
        "Kelly fraction: win rate less (1 - win rate) over (mean profit / mean loss).",
        "no trade won, or none lost",
        better=1,
    ),
    "commission_paid": Metric("currency", "Commission of all legs.", better=-1),
    "slippage_paid": Metric("currency", "What slippage took on all legs.", better=-1),
}

METRICS: Final[Mapping[str, Mapping[str, Metric]]] = {
    "classification": CLASSIFICATION_METRICS,
    "regression": REGRESSION_METRICS,
    "backtesting": BACKTEST_METRICS,
}

TRADE_COLUMNS: Final[tuple[str, ...]] = (
    "entry_time", "entry_price", "exit_time", "exit_price", "side", "size", "pnl", "pnl_pct", "commission", "mae", "mfe",
    "bars_held", "exit_reason",
)  # fmt: skip
"""Columns of the artifact ``trades``: fill times (UTC) and prices, ``side`` long or short, ``size`` in units of the symbol,
``pnl`` and ``commission`` in currency, ``pnl_pct``, ``mae`` and ``mfe`` as fractions of the entry."""

EQUITY_COLUMNS: Final[tuple[str, ...]] = ("time", "equity", "drawdown", "position")
"""Columns of the artifact ``equity``, one row a bar: its CLOSE time (UTC), equity there, fall below the highest before as a fraction
(zero or negative), units held (negative: short)."""

EXIT_REASONS: Final[tuple[str, ...]] = ("signal", "stop_loss", "take_profit", "max_holding", "ruin", "end_of_data")
"""Why a position was closed; the kernel returns the index."""


class _Values:
    """Read a metrics struct like a mapping: ``metrics["sharpe_ratio"]``."""

    __slots__ = ()
    __struct_fields__: ClassVar[tuple[str, ...]]

    def __getitem__(self, name: str) -> float | int | None:
        if name not in self.__struct_fields__:
            raise KeyError(name)
        return cast("float | int | None", getattr(self, name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.__struct_fields__)

    def items(self) -> Iterator[tuple[str, float | int | None]]:
        """Names and values, in the order of the schema."""
        return ((name, self[name]) for name in self.__struct_fields__)


class ClassificationMetrics(_Values, msgspec.Struct, frozen=True, kw_only=True, tag_field="output_format", tag="classification"):
    """How well classes were predicted on one part of the data; see ``CLASSIFICATION_METRICS``.

    ``confusion[i][j]`` counts samples of true class i that were predicted as class j, in the order of ``classes``.
    """

    samples: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    mcc: float | None
    log_loss: float
    confusion: list[list[int]]


class RegressionMetrics(_Values, msgspec.Struct, frozen=True, kw_only=True, tag_field="output_format", tag="regression"):
    """How well returns were predicted on one part of the data; see ``REGRESSION_METRICS``."""

    samples: int
    mse: float
    mae: float
    r2: float | None
    ic: float | None
    rank_ic: float | None
    directional_accuracy: float | None


class BacktestMetrics(_Values, msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one backtest; see ``BACKTEST_METRICS``."""

    duration_days: float
    exposure_time: float
    equity_final: float
    equity_peak: float
    total_return: float
    buy_hold_return: float
    annual_return: float | None
    cagr: float | None
    annual_volatility: float | None
    sharpe_ratio: float | None
    sortino_ratio: float | None
    calmar_ratio: float | None
    max_drawdown: float
    avg_drawdown: float | None
    max_drawdown_days: float | None
    avg_drawdown_days: float | None
    trades: int
    long_trades: int
    short_trades: int
    win_rate: float | None
    best_trade: float | None
    worst_trade: float | None
    avg_trade: float | None
    avg_bars_held: float | None
    max_bars_held: int | None
    profit_factor: float | None
    expectancy: float | None
    sqn: float | None
    kelly: float | None
    commission_paid: float
    slippage_paid: float


Score: TypeAlias = ClassificationMetrics | RegressionMetrics


class DataUsed(msgspec.Struct, frozen=True, kw_only=True):
    """The bars a job worked on.

    ``timeframe`` is the one that is decided on, ``bars`` counts its bars between ``first`` and ``last`` (opens, ISO 8601, UTC);
    ``warmup_bars`` of them only fed the indicators. ``digest`` is the SHA-256 of the file as submitted.
    """

    symbol: str
    timeframe: str
    digest: str
    filename: str
    origin: str
    source_timeframe: str
    bars: int
    warmup_bars: int
    gaps: int
    first: str
    last: str


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the chronological split.

    ``first`` and ``last`` are the opens of the first and last bar whose label was used, ``label_end`` that of the last bar any of
    those labels looks at. ``purged`` bars at the end of the part were left out, because their labels reach into the next part or
    its embargo; ``skipped`` ones at its beginning, because what the network reads for them would begin before the part.
    ``class_counts`` is in the order of ``classes``, and empty in a regression; ``by_symbol`` counts the samples of each symbol.
    """

    samples: int
    purged: int
    skipped: int
    first: str
    last: str
    label_end: str
    class_counts: list[int]
    by_symbol: dict[str, int]


class EpochHistory(msgspec.Struct, frozen=True, kw_only=True):
    """One value an epoch, as columns; ``epoch`` starts at 1. Losses are those of ``training.loss``.

    Accuracies are fractions: of samples in their class, or, in a regression, on the right side of 0.
    """

    epoch: list[int]
    train_loss: list[float]
    validation_loss: list[float]
    train_accuracy: list[float]
    validation_accuracy: list[float]
    learning_rate: list[float]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A result as a whole: knows its schema and converts to and from plain dictionaries."""

    KIND: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """The plain form: dictionaries, lists, strings and numbers, ready for MessagePack or JSON.

        Raises
        ------
        ValueError
            When a figure is NaN or infinite; undefined ones must be ``None``.
        """
        plain = {"schema": SCHEMA, "kind": self.KIND, **cast("dict[str, Any]", msgspec.to_builtins(self))}
        _refuse_non_finite(plain, self.KIND)
        return plain

    def outcome_digest(self) -> str:
        """SHA-256 over everything that is equal when the same job is done again on another worker: all fields but ``CIRCUMSTANCES``.

        The fields are written as JSON with sorted keys and without spaces; numbers have the shortest form that reads back as the same
        bits. Files count by their own digests, which are fields.
        """
        plain = {key: value for key, value in self.to_dict().items() if key not in CIRCUMSTANCES}
        return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()

    def sealed(self) -> Self:
        """The same with its ``digest`` filled in."""
        return msgspec.structs.replace(self, digest=self.outcome_digest())

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote.

        Raises
        ------
        NewerSchema
            When the document says a schema above the one known here.
        PayloadError
            When it is another kind of document, or a field is missing or of the wrong type.
        """
        _check_schema(plain, cls.KIND)
        try:
            return msgspec.convert({k: v for k, v in plain.items() if k not in ("schema", "kind")}, cls)
        except msgspec.ValidationError as error:
            raise PayloadError(f"This is not a valid {cls.KIND} result: {error}") from error


class TrainingResult(Document, frozen=True, kw_only=True):
    """What a training returns. The model itself is the artifact ``model`` with the digest ``model_digest``.

    ``timeframe`` is the one of ``timeframes`` that is decided on; ``data`` is in the order of ``symbols``.
    ``output_format`` is ``classification`` or ``regression``, and every score is of that kind. ``baseline`` scores, on the test part, the
    rule "always the most frequent class of the training part" (its log-loss uses the class frequencies of the training part), or "always
    the mean return of the training part"; ``majority_class`` is empty then. ``gap`` is balanced accuracy, or r2, on validation less that
    on test.
    ``conventions`` states in words and numbers how the figures came about. ``fingerprint`` names the software and processor: only
    where it and ``threads`` are equal are two runs of a job claimed to agree bit for bit, and to have the same ``digest`` (see
    ``outcome_digest``).
    """

    KIND: ClassVar[str] = "training"

    strategy_name: str
    symbols: list[str]
    timeframe: str
    timeframes: list[str]
    overrides: dict[str, Any]
    data: list[DataUsed]
    output_format: Literal["classification", "regression"]
    model_type: str
    sequence_length: int
    classes: list[str]
    feature_ids: list[str]
    train_part: Part
    validation_part: Part
    test_part: Part
    epochs_run: int
    best_epoch: int
    stopped_early: bool
    history: EpochHistory
    train: Score
    validation: Score
    test: Score
    baseline: Score
    majority_class: str
    gap: float | None
    parameters: int
    seed: int
    device: str
    threads: int
    duration_s: float
    model_digest: str
    config_digest: str
    fingerprint: dict[str, str]
    conventions: dict[str, Any]
    warnings: list[str]
    digest: str


def differing_circumstances(one: TrainingResult, other: TrainingResult) -> list[str]:
    """What of software, processor, device and threads differs between two trainings; only where nothing does is equality claimed."""
    names = sorted({*one.fingerprint, *other.fingerprint})
    found = [name for name in names if one.fingerprint.get(name) != other.fingerprint.get(name)]
    return found + (["threads"] if one.threads != other.threads else [])


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The bars a backtest ran over, and how many of them the model had seen in training.

    ``first`` and ``last`` are opens (ISO 8601, UTC). ``chosen`` is true where the job named a start or end; otherwise the window is what
    the model never saw. ``seen_bars`` counts bars from the first one that the model learned from to the last one that a training or
    validation label looks at.
    """

    first: str
    last: str
    bars: int
    chosen: bool
    seen_bars: int


class BacktestResult(Document, frozen=True, kw_only=True):
    """What a backtest returns; its trades and its equity curve are the artifacts ``trades`` and ``equity`` (CSV).

    ``signals`` counts the model's decisions over the window, after the confidence threshold and the minimum separation, by class.
    ``conventions`` states in words and numbers how the figures came about. ``digest`` is ``outcome_digest``: the same job gives the same
    one on every worker with an equal ``fingerprint``, in whatever order and beside whatever else.
    """

    KIND: ClassVar[str] = "backtesting"

    strategy_name: str
    symbol: str
    timeframe: str
    timeframes: list[str]
    overrides: dict[str, Any]
    data: DataUsed
    window: Window
    in_sample: bool
    capital: float
    commission_bps: float
    slippage_bps: float
    metrics: BacktestMetrics
    signals: dict[str, int]
    open_at_end: bool
    model_digest: str
    artifacts: dict[str, str]
    device: str
    duration_s: float
    fingerprint: dict[str, str]
    conventions: dict[str, Any]
    warnings: list[str]
    digest: str


class ReportResult(Document, frozen=True, kw_only=True):
    """What a report returns; the page itself is the artifact ``report`` (HTML).

    ``backtest`` and ``training`` are the ids of the jobs that it shows, the latter empty where it is not known; ``bars`` rows of the equity
    curve and ``trades`` were read. ``with_prices`` is false where the bars were not there.
    """

    KIND: ClassVar[str] = "report"

    title: str
    backtest: str
    training: str
    bars: int
    trades: int
    with_prices: bool
    in_sample: bool
    octets: int
    report_digest: str
    duration_s: float
    warnings: list[str]
    digest: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A value that changes when later bars are taken away.

    ``step`` is where on the way from bars to fills: ``bar``, ``feature``, ``output`` (of the network), ``decision`` or ``fill``. ``first``
    is the open of the first bar where it changes, ``cut_after`` that of the last bar that was left; ``whole`` and ``part`` are the value
    there with all bars and with those, None where it is none, and ``size`` their difference. ``cuts`` counts the cuts that change it.
    """

    step: str
    name: str
    first: str
    cut_after: str
    whole: float | None
    part: float | None
    size: float | None
    cuts: int


class LookaheadResult(Document, frozen=True, kw_only=True):
    """What a look-ahead check returns: a model over all bars, and again over the bars up to each of ``cuts`` bars.

    ``clean`` is true where nothing up to a cut depends on what comes after it. ``changes`` has an entry for each value that does, the
    first bar and the earliest step first: that one is the cause. ``bars`` is the number of bars that could have been cut after.
    """

    KIND: ClassVar[str] = "check-lookahead"

    strategy_name: str
    symbol: str
    timeframe: str
    timeframes: list[str]
    data: DataUsed
    model_digest: str
    clean: bool
    cuts: int
    bars: int
    seed: int
    changes: list[Change]
    device: str
    threads: int
    duration_s: float
    fingerprint: dict[str, str]
    conventions: dict[str, Any]
    warnings: list[str]
    digest: str


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What so much history changes against all that there is.

    ``bars`` before a bar are ``multiple`` times the warm-up; ``changed`` of ``samples`` decisions differ, ``share`` is their share, None
    without samples. ``largest_feature`` is the largest difference of a feature as the network reads it, ``feature`` its name (empty:
    none differs), ``largest_output`` that of an output of the network.
    """

    multiple: int
    bars: int
    samples: int
    changed: int
    share: float | None
    feature: str
    largest_feature: float
    largest_output: float


class WarmupResult(Document, frozen=True, kw_only=True):
    """What a warm-up check returns: how decisions at a sample of bars change with the history before them.

    ``warmup_bars`` is what the indicators and the network's window need for a first value, ``history_required`` what the strategy asks for.
    ``recommended`` is the shortest history tried from which on nothing changes that matters (see ``conventions``), None if there is none;
    ``enough`` says whether the strategy asks for as much.
    """

    KIND: ClassVar[str] = "check-warmup"

    strategy_name: str
    symbol: str
    timeframe: str
    timeframes: list[str]
    data: DataUsed
    model_digest: str
    warmup_bars: int
    history_required: int
    lengths: list[History]
    recommended: int | None
    enough: bool | None
    seed: int
    device: str
    threads: int
    duration_s: float
    fingerprint: dict[str, str]
    conventions: dict[str, Any]
    warnings: list[str]
    digest: str


DOCUMENTS: Final[Mapping[str, type[Document]]] = {
    cls.KIND: cls for cls in (TrainingResult, BacktestResult, ReportResult, LookaheadResult, WarmupResult)
}


def read(plain: Mapping[str, Any]) -> Document:
    """Read a result, told apart by its ``kind``.

    Raises
    ------
    NewerSchema, PayloadError
        As ``Document.from_dict``; also for a kind that has no schema here.
    """
    from ktrdr_zmq import datasets  # which builds on this module

    known = {**DOCUMENTS, **datasets.DOCUMENTS}
    kind = str(plain.get("kind"))
    if kind not in known:
        raise PayloadError(f"A result of kind {kind!r} has no schema here; known: {', '.join(known)}.")
    return known[kind].from_dict(plain)


def _check_schema(plain: Mapping[str, Any], kind: str) -> None:
    schema = plain.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise PayloadError(f"The {kind} result does not say its schema.")
    if schema > SCHEMA:
        raise NewerSchema(f"The {kind} result has schema {schema}; this release reads up to schema {SCHEMA}.")
    if plain.get("kind") != kind:
        raise PayloadError(f"A result of kind {plain.get('kind')!r} was given where one of kind {kind!r} is needed.")


def _refuse_non_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}; an undefined figure must be None")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{where}[{index}]")
