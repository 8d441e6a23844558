"""The tables of a report. Each function makes one section of the page, from typed results to HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from ktrdr_worker.trading.report.charts import REASONS
from ktrdr_worker.trading.report.markup import Child, Markup, el, joined
from ktrdr_worker.trading.report.material import Material, Ran
from ktrdr_worker.trading.report.series import Year
from ktrdr_zmq.figures import figure, label
from ktrdr_zmq.results import BACKTEST_METRICS, METRICS, Metric, TrainingResult

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SHADES: Final = (0.005, 0.015, 0.03, 0.06)
"""Where the shade of a return becomes one step deeper, as fractions."""

EXTREMES: Final = 5

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Return": ("total_return", "buy_hold_return", "annual_return", "cagr", "equity_final", "equity_peak", "duration_days", "exposure_time"),
    "Risk": (
        "annual_volatility", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "max_drawdown", "avg_drawdown", "max_drawdown_days",
        "avg_drawdown_days",
    ),
    "Trades": (
        "trades", "long_trades", "short_trades", "win_rate", "best_trade", "worst_trade", "avg_trade", "avg_bars_held", "max_bars_held",
    ),
    "Quality and costs": ("profit_factor", "expectancy", "sqn", "kelly", "commission_paid", "slippage_paid"),
}  # fmt: skip
"""How figures are grouped; what is in none of them comes last, so that no figure is left out."""

HEADLINES: Final = (
    "total_return",
    "buy_hold_return",
    "annual_return",
    "sharpe_ratio",
    "max_drawdown",
    "trades",
    "win_rate",
    "profit_factor",
)


def section(title: str, *children: Child, id_: str) -> Markup:
    """A part of the page under a heading."""
    return el("section", el("h2", title, id=id_), *children, aria_labelledby=id_)


def scrolling(table: Markup, what: str) -> Markup:
    """A table that may be wider than the page: it scrolls by itself, by keyboard too."""
    return el("div", table, class_="scroll", role="region", aria_label=what, tabindex="0")


def shown(value: float | None, metric: Metric) -> Markup:
    """A figure as the command line writes it; an undefined one as a dash with the reason."""
    text = figure(value, metric.unit)
    if value is None:
        return joined(el("span", text, class_="none"), el("small", metric.undefined))
    return joined(text)


# ---------------------------------------------------------------- the backtest


def headlines(material: Material) -> Markup:
    """The figures that are read first."""
    metrics = material.result.metrics
    tiles = []
    for name in HEADLINES:
        metric, value = BACKTEST_METRICS[name], metrics[name]
        tone = (
            "" if value is None or name not in ("total_return", "sharpe_ratio") else ("good" if value > 0 else "bad" if value < 0 else "")
        )
        tiles.append(el("div", el("dt", label(name)), el("dd", shown(value, metric), class_=tone)))
    return el("dl", tiles, class_="tiles")


def _tone(value: float | None) -> str:
    return "" if not value else "good" if value > 0 else "bad"


def months(years: Sequence[Year], first: str, last: str) -> Markup:
    """Returns of years by months."""
    head = el("tr", el("th", "Year", scope="col"), (el("th", name, scope="col") for name in MONTHS), el("th", "Total", scope="col"))
    rows = [
        el(
            "tr",
            el("th", str(year.year), scope="row"),
            (el("td", _percent(value), class_=_shade(value)) for value in year.months),
            el("td", _percent(year.total), class_=f"total {_shade(year.total)}"),
        )
        for year in years
    ]
    caption = el("caption", "Returns in percent", class_="unseen")
    table = el("table", caption, el("thead", head), el("tbody", rows), class_="months")
    words = f"Percent, after costs, by the month of the session. The window is {first} to {last}: its first and last month may be parts."
    return section("Monthly returns", el("p", words, class_="note"), scrolling(table, "Monthly returns"), id_="months")


def _percent(value: float | None) -> str:
    if value is None:
        return ""
    return "0.0" if abs(value) < 0.0005 else f"{100 * value:+.1f}"


def _shade(value: float | None) -> str:
    if value is None or abs(value) < 0.0005:
        return "zero"
    return ("p" if value > 0 else "n") + str(1 + sum(abs(value) >= limit for limit in SHADES))


def extremes(trades: pd.DataFrame) -> Markup:
    """The best and the worst trades."""
    ranked = trades.sort_values("pnl", ascending=False, kind="stable")
    chosen = ranked if len(trades) <= 2 * EXTREMES else pd.concat([ranked.head(EXTREMES), ranked.tail(EXTREMES)])
    titles = ("Entry (UTC)", "Exit (UTC)", "Side", "In", "Out", "PnL", "PnL %", "Bars", "Exit by")
    head = el("tr", (el("th", title, scope="col", class_="num" if 3 <= place < 8 else "") for place, title in enumerate(titles)))
    rows = [el("tr", *_trade(trade)) for trade in chosen.to_dict("records")]
    count = (
        f"All {len(trades)} trades"
        if len(chosen) == len(trades)
        else f"The {EXTREMES} best and the {EXTREMES} worst of {len(trades):,} trades"
    )
    table = el("table", el("caption", f"{count}, after costs."), el("thead", head), el("tbody", rows), class_="trades")
    return scrolling(table, "Best and worst trades")


def _trade(trade: dict[str, Any]) -> Iterable[Markup]:
    tone = "num good" if trade["pnl"] > 0 else "num bad"
    yield el("th", _minute(trade["entry_time"]), scope="row")
    yield el("td", _minute(trade["exit_time"]))
    yield el("td", trade["side"])
    yield el("td", f"{trade['entry_price']:,.6g}", class_="num")
    yield el("td", f"{trade['exit_price']:,.6g}", class_="num")
    yield el("td", f"{trade['pnl']:+,.2f}", class_=tone)
    yield el("td", f"{100 * trade['pnl_pct']:+.2f}", class_=tone)
    yield el("td", f"{trade['bars_held']:,.0f}", class_="num")
    yield el("td", REASONS.get(trade["exit_reason"], trade["exit_reason"]))


def _minute(nanoseconds: int) -> str:
    return pd.Timestamp(nanoseconds).strftime("%Y-%m-%d %H:%M")


def figures(material: Material) -> Markup:
    """Every figure of the backtest, with what it means."""
    metrics = material.result.metrics
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "More": tuple(name for name in metrics if name not in grouped)}
    tables = []
    for title, names in groups.items():
        known = [name for name in names if name in BACKTEST_METRICS]
        rows = [
            el("tr", el("th", label(name), el("small", BACKTEST_METRICS[name].meaning), scope="row"),
               el("td", shown(metrics[name], BACKTEST_METRICS[name]), class_="num"))
            for name in known
        ]  # fmt: skip
        if rows:
            tables.append(el("table", el("caption", title), el("tbody", rows), class_="figures"))
    return section("Every figure", el("div", tables, class_="columns"), id_="figures")


# ---------------------------------------------------------------- the training


def scores(training: TrainingResult) -> Markup:
    """Figures of the training's parts, the test part beside its baseline."""
    parts = {"test": training.test, "baseline": training.baseline, "validation": training.validation, "train": training.train}
    head = el("tr", el("th", "Figure", scope="col"), (el("th", name, scope="col") for name in parts))
    rows = [
        el("tr", el("th", label(name), el("small", metric.meaning), scope="row"),
           (el("td", shown(part[name], metric), class_="num") for part in parts.values()))
        for name, metric in METRICS[training.output_format].items()
    ]  # fmt: skip
    known = training.majority_class or "the mean return of the training part"
    rule = f"The test part was never learned from. The baseline, scored on it, always says {known}."
    return scrolling(el("table", el("caption", rule), el("thead", head), el("tbody", rows), class_="scores"), "Scores of the training")


def parts(training: TrainingResult) -> Markup:
    """The chronological split."""
    head = el("tr", (el("th", title, scope="col") for title in ("Part", "Samples", "Purged", "First", "Last", "Labels")))
    rows = []
    for name, part in (("train", training.train_part), ("validation", training.validation_part), ("test", training.test_part)):
        counts = ", ".join(f"{count:,} {word}" for word, count in zip(training.classes, part.class_counts, strict=False))
        cells = (f"{part.samples:,}", f"{part.purged:,}", part.first[:10], part.last[:10], counts)
        rows.append(el("tr", el("th", name, scope="row"), (el("td", cell, class_="num" if i < 2 else "") for i, cell in enumerate(cells))))
    table = el("table", el("caption", "The split, in time."), el("thead", head), el("tbody", rows), class_="parts")
    return scrolling(table, "The split")


# ---------------------------------------------------------------- how it came about


def facts(pairs: Iterable[tuple[str, Child]], class_: str = "facts") -> Markup:
    """Names with values."""
    return el("dl", (el("div", el("dt", name), el("dd", value)) for name, value in pairs if value not in ("", ())), class_=class_)


def conventions(material: Material) -> Markup:
    """How the figures were computed, as the jobs themselves say."""
    blocks: list[Child] = [el("h3", "Backtest"), facts((label(name), plain(value)) for name, value in material.result.conventions.items())]
    if material.training is not None:
        blocks += [el("h3", "Training"), facts((label(name), plain(value)) for name, value in material.training.conventions.items())]
    return section("Conventions", *blocks, id_="conventions")


def provenance(material: Material) -> Markup:
    """Where everything comes from, so that it can be made again."""
    result, training = material.result, material.training
    data = result.data
    rows: list[tuple[str, Child]] = [
        *_job("backtest", material.job),
        ("bars", f"{data.symbol} {data.timeframe}, {data.bars:,} from {data.first} to {data.last}, {data.gaps:,} gaps"),
        ("warm-up", f"{data.warmup_bars:,} of them only fed the indicators"),
        ("bars file", f"{data.filename} ({data.origin}, {data.source_timeframe})"),
        ("bars SHA-256", _code(data.digest)),
        ("model SHA-256", _code(result.model_digest)),
        ("strategy", result.strategy_name),
        ("overrides", plain(result.overrides)),
        ("backtest software", plain(result.fingerprint)),
        ("backtest device", result.device),
        ("backtest digest", _code(result.digest)),
    ]  # fmt: skip
    if training is not None and material.training_job is not None:
        rows += [
            *_job("training", material.training_job),
            ("decides on bars of", f"{training.timeframe}, reads {', '.join(training.timeframes)}"),
            *(
                (f"training bars of {used.symbol}", joined(f"{used.filename} ({used.origin}) ", _code(used.digest)))
                for used in training.data
            ),
            ("configuration SHA-256", _code(training.config_digest)),
            ("training software", plain(training.fingerprint)),
            ("network", f"{training.parameters:,} parameters, seed {training.seed}, {training.threads} threads, device {training.device}"),
            ("features", ", ".join(training.feature_ids)),
        ]
    rows.append(("this page", plain(material.software)))
    return section("Provenance", facts(rows), id_="provenance")


def _job(what: str, job: Ran) -> list[tuple[str, Child]]:
    where = f" on {job.worker_id}" + (f" ({job.tag} slot)" if job.tag else "") if job.worker_id else ""
    times = f"submitted {job.submitted}" if job.submitted else ""
    times += f", finished {job.finished}" if job.finished else ""
    return [
        (f"{what} job", joined(_code(job.id), where)),
        (f"{what} name", job.name),
        (f"{what} labels", plain(job.labels)),
        (f"{what} submitter", job.submitter),
        (f"{what} times", times.removeprefix(", ")),
    ]


def _code(digest: str) -> Markup:
    return el("code", digest)


def plain(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, float):
        return str(np.format_float_positional(value, trim="-"))
    return "" if value is None else str(value)
