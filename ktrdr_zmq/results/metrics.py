"""The figures: what each means, and the typed form in which a result carries them.

Names, units and the rule of which figure may be undefined live here and nowhere else; ``docs/metrics.md`` is compared with ``METRICS``
by a test. An undefined figure is ``None``, never 0, NaN or infinity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final, TypeAlias, cast

import msgspec


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
