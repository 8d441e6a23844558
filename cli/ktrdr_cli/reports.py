"""Tables of what a training and a backtest found: figures with their units, the baseline beside them, IN-SAMPLE where it is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from ktrdr_cli.blocks import DASH, Block, Column, Fields, Table
from ktrdr_cli.texts import as_text, octets, seconds
from ktrdr_zmq.figures import figure, label

if TYPE_CHECKING:
    from ktrdr_zmq.results import BacktestResult, LookaheadResult, ReportResult, Score, TrainingResult, WarmupResult
    from ktrdr_zmq.views import JobInfo

IN_SAMPLE: Final = "IN-SAMPLE: the window overlaps the bars that the model was trained on. These figures say nothing about the future."

_SHORT: Final = {
    "total_return", "buy_hold_return", "annual_return", "annual_volatility", "sharpe_ratio", "sortino_ratio", "calmar_ratio",
    "max_drawdown", "max_drawdown_days", "exposure_time", "trades", "win_rate", "profit_factor", "avg_trade", "best_trade", "worst_trade",
    "commission_paid", "slippage_paid", "equity_final",
}  # fmt: skip
"""What the table after a backtest shows; ``jobs result`` shows every figure."""


BASELINES: Final = {"classification": "most frequent class", "regression": "mean return of the training part"}


def day(moment: str) -> str:
    """The day of an ISO 8601 time."""
    return moment[:10]


def where_it_ran(info: JobInfo, device: str) -> str:
    """Worker, slot and device."""
    return f"{info.worker_id} ({info.tag} slot, device {device})" if info.tag else f"{info.worker_id} (device {device})"


def report(plain: Mapping[str, Any], info: JobInfo, *, full: bool = False) -> list[Block]:
    """The blocks for a result; of a kind that has no schema, its values by name."""
    from ktrdr_cli.datareports import check_report, import_report
    from ktrdr_zmq.datasets import CHECK, IMPORT
    from ktrdr_zmq.results import DOCUMENTS, BacktestResult, LookaheadResult, ReportResult, WarmupResult, read

    if plain.get("kind") == IMPORT:
        return import_report(plain, info)
    if plain.get("kind") == CHECK:
        return check_report(plain)

    if plain.get("kind") not in DOCUMENTS:
        rows = [(str(key), as_text(value)) for key, value in plain.items() if key not in ("schema", "kind")]
        return [Fields([("job", info.id), *rows], title=f"Result of {info.kind} {info.name}".rstrip())]
    document = read(plain)
    if isinstance(document, BacktestResult):
        return backtest_report(document, info, full=full)
    if isinstance(document, ReportResult):
        return page_report(document, info)
    if isinstance(document, LookaheadResult):
        return lookahead_report(document, info)
    if isinstance(document, WarmupResult):
        return warmup_report(document, info)
    return training_report(cast("TrainingResult", document), info, full=full)


# ---------------------------------------------------------------------------------------------------------------- training


def training_report(result: TrainingResult, info: JobInfo, *, full: bool = False) -> list[Block]:
    """What a training found: test figures beside those of the rule that knows nothing."""
    stopped = ", stopped early" if result.stopped_early else ""
    data = [f"{one.symbol} {one.timeframe}, {one.bars:,} bars, {day(one.first)} to {day(one.last)} ({one.origin})" for one in result.data]
    rows = [
        ("job", info.id),
        ("worker", where_it_ran(info, result.device)),
        ("data", "\n".join(data)),
        *context(result),
        ("epochs", f"{result.epochs_run}, best {result.best_epoch}{stopped}; {seconds(result.duration_s)}"),
        ("test part", f"{result.test_part.samples:,} samples, {day(result.test_part.first)} to {day(result.test_part.last)}"),
        ("model", result.model_digest[:16] if not full else result.model_digest),
    ]
    if full:
        reads = f", {result.sequence_length} bars at a time" if result.sequence_length > 1 else ""
        rows += [
            ("network", f"{result.model_type} for {result.output_format}{reads}"),
            ("parameters", f"{result.parameters:,} in the network, seed {result.seed}, {result.threads} threads"),
            ("classes", ", ".join(result.classes) or DASH),
            ("features", "\n".join(result.feature_ids)),
            ("overrides", as_text(result.overrides)),
            ("config digest", result.config_digest),
            ("data digest", "\n".join(one.digest for one in result.data)),
            ("result digest", result.digest),
            ("software", as_text(result.fingerprint)),
        ]
    parts = {"test": result.test, "baseline": result.baseline, "validation": result.validation, "train": result.train}
    blocks: list[Block] = [
        Fields(rows, title=f"Trained {info.name or result.strategy_name}"),
        metric_table(parts, title=f"On bars that it never saw; the baseline always says the {BASELINES[result.output_format]}"),
    ]
    if full:
        blocks.append(parts_table(result))
    return blocks + warnings(result.warnings)


def context(result: TrainingResult | BacktestResult) -> list[tuple[str, str]]:
    """The timeframes that are read beside the one that is decided on."""
    others = [timeframe for timeframe in result.timeframes if timeframe != result.timeframe]
    return [("reads also", f"bars of {', '.join(others)}")] if others else []


def metric_table(parts: Mapping[str, Score], title: str) -> Table:
    """Figures of classes or returns, a column for each part."""
    from ktrdr_zmq.results import CLASSIFICATION_METRICS, REGRESSION_METRICS, RegressionMetrics

    metrics = REGRESSION_METRICS if isinstance(parts["test"], RegressionMetrics) else CLASSIFICATION_METRICS
    columns = [Column("METRIC", whole=True), *(Column(name.upper(), right=True, whole=True) for name in parts)]
    rows = [[label(name), *(figure(part[name], metric.unit) for part in parts.values())] for name, metric in metrics.items()]
    return Table(columns, rows, title=title)


def parts_table(result: TrainingResult) -> Table:
    """How the bars were split."""
    columns = [
        Column("PART"),
        Column("SAMPLES", right=True),
        Column("PURGED", right=True),
        Column("SKIPPED", right=True),
        Column("FIRST"),
        Column("LAST"),
        Column("CLASSES"),
    ]
    rows = []
    for name, part in (("train", result.train_part), ("validation", result.validation_part), ("test", result.test_part)):
        counts = ", ".join(f"{count:,} {word}" for word, count in zip(result.classes, part.class_counts, strict=False))
        rows.append([name, f"{part.samples:,}", f"{part.purged:,}", f"{part.skipped:,}", day(part.first), day(part.last), counts or DASH])
    return Table(columns, rows, title="The split, in time")


# ---------------------------------------------------------------------------------------------------------------- backtest


def backtest_report(result: BacktestResult, info: JobInfo, *, full: bool = False) -> list[Block]:
    """What a backtest found."""
    from ktrdr_zmq.results import BACKTEST_METRICS

    window = result.window
    chosen = "as asked for" if window.chosen else "what the model never saw"
    rows = [
        ("job", info.id),
        ("worker", where_it_ran(info, result.device)),
        ("model", f"{info.name or result.strategy_name} ({result.model_digest[:16]})"),
        ("window", f"{day(window.first)} to {day(window.last)}, {window.bars:,} bars of {result.symbol} {result.timeframe}: {chosen}"),
        *context(result),
        (
            "money",
            f"{result.capital:,.0f} at the start; {result.commission_bps:g} bps commission, {result.slippage_bps:g} bps slippage a leg",
        ),
        ("signals", ", ".join(f"{count:,} {word}" for word, count in result.signals.items()) or DASH),
    ]
    if result.in_sample:
        rows.append(("IN-SAMPLE", f"yes: {window.seen_bars:,} of the bars were seen in training"))
    if full:
        rows += [
            ("open at end", as_text(result.open_at_end)),
            ("overrides", as_text(result.overrides)),
            ("model digest", result.model_digest),
            ("data digest", result.data.digest),
            ("result digest", result.digest),
            ("software", as_text(result.fingerprint)),
        ]
    shown = {name: metric for name, metric in BACKTEST_METRICS.items() if full or name in _SHORT}
    mark = "  IN-SAMPLE" if result.in_sample else ""
    cells = [[label(name), figure(result.metrics[name], metric.unit)] for name, metric in shown.items()]
    if not full:
        half = (len(cells) + 1) // 2
        left, right = cells[:half], [*cells[half:], *([["", ""]] if len(cells) % 2 else [])]
        cells = [[*first, *second] for first, second in zip(left, right, strict=True)]
    pair = [Column("METRIC", whole=True), Column("VALUE", right=True, whole=True)]
    blocks: list[Block] = [
        Fields(rows, title=f"Backtest of {info.name or result.strategy_name}{mark}"),
        Table(pair if full else pair * 2, cells, title="Figures, after costs"),
    ]
    if full:
        blocks.append(Fields([(label(name), as_text(value)) for name, value in result.conventions.items()], title="Conventions"))
    if result.in_sample:
        blocks.append(IN_SAMPLE)
    return blocks + warnings(result.warnings)


def page_report(result: ReportResult, info: JobInfo) -> list[Block]:
    """What a report shows; the page itself is a file of the job."""
    rows = [
        ("job", info.id),
        ("backtest", result.backtest),
        ("training", result.training or DASH),
        ("page", f"{octets(result.octets)}, {result.bars:,} bars, {result.trades:,} trades"),
    ]
    return [Fields(rows, title=f"Report: {result.title}"), *warnings(result.warnings)]


# ---------------------------------------------------------------------------------------------------------------- checks


def _checked(result: LookaheadResult | WarmupResult, info: JobInfo) -> list[tuple[str, str]]:
    """What both checks say first."""
    data = result.data
    return [
        ("job", info.id),
        ("worker", where_it_ran(info, result.device)),
        ("model", f"{info.name or result.strategy_name} ({result.model_digest[:16]})"),
        ("bars", f"{data.symbol} {data.timeframe}, {data.bars:,} bars, {day(data.first)} to {day(data.last)} ({data.origin})"),
    ]


def lookahead_report(result: LookaheadResult, info: JobInfo) -> list[Block]:
    """Whether a model sees what it cannot know yet; where it does, what changes first."""
    rows = [*_checked(result, info), ("cuts", f"after {result.cuts:,} of {result.bars:,} bars, seed {result.seed}")]
    title = f"Look-ahead check of {info.name or result.strategy_name}"
    if result.clean:
        rows.append(("result", "clean: nothing up to a cut depends on what comes after it"))
        return [Fields(rows, title=title), *warnings(result.warnings)]
    first = result.changes[0]
    text = (
        f"LOOK-AHEAD: the {first.step} {first.name} of {first.first} changes from {_value(first.whole)} to {_value(first.part)} "
        f"when the bars after {first.cut_after} are taken away"
    )
    rows.append(("result", text))
    columns = [
        Column("WHAT", whole=True), Column("NAME"), Column("FIRST BAR"), Column("CUT AFTER"), Column("DIFFERS BY", right=True),
        Column("CUTS", right=True),
    ]  # fmt: skip
    cells = [
        [change.step, change.name, change.first[:16], change.cut_after[:16], _value(change.size), f"{change.cuts:,}"]
        for change in result.changes
    ]
    return [Fields(rows, title=title), Table(columns, cells, title="What changes, the first bar and the earliest step first"),
            *warnings(result.warnings)]  # fmt: skip


def _value(value: float | None) -> str:
    return DASH if value is None else f"{value:.6g}"


def warmup_report(result: WarmupResult, info: JobInfo) -> list[Block]:
    """How decisions change with history, and how much is recommended."""
    advice = DASH
    if result.recommended is not None:
        asked = f"the strategy asks for {result.history_required:,}"
        advice = f"{result.recommended:,} bars; {asked}: {'enough' if result.enough else 'too few'}"
    rows = [*_checked(result, info), ("warm-up", f"{result.warmup_bars:,} bars before the first value"), ("history_required", advice)]
    columns = [
        Column("HISTORY", right=True), Column("WARM-UPS", right=True), Column("SAMPLES", right=True), Column("CHANGED", right=True),
        Column("OUTPUT", right=True), Column("FEATURE", right=True), Column("WHICH"),
    ]  # fmt: skip
    cells = [
        [
            f"{each.bars:,}", f"{each.multiple:.3g}x", f"{each.samples:,}", figure(each.share, "fraction"), _value(each.largest_output),
            _value(each.largest_feature), each.feature or DASH,
        ]
        for each in result.lengths
    ]  # fmt: skip
    return [
        Fields(rows, title=f"Warm-up check of {info.name or result.strategy_name}"),
        Table(columns, cells, title="Decisions changed, and outputs and features by how much at most, against all history"),
        *warnings(result.warnings),
    ]


def warnings(texts: Sequence[str]) -> list[Block]:
    """What the job itself warned of."""
    return ["\n".join(f"Note: {text}" for text in texts)] if texts else []
