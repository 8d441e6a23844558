"""The page as a whole: what stands where, and that it needs nothing from outside.

The page carries style, data and plotly.js in itself. Its content security policy forbids the browser every request and every script but the
two that are named by digest, so that neither a chart library nor a hostile name can reach the network.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files

from ktrdr_worker.trading.report import sections
from ktrdr_worker.trading.report.charts import Chart, course, distribution, history
from ktrdr_worker.trading.report.markup import Child, Markup, el, joined, raw
from ktrdr_worker.trading.report.material import Material
from ktrdr_worker.trading.report.series import monthly
from ktrdr_zmq.strategy.symbols import classify

NEVER_SEEN = "the model never saw these bars"


def title_of(material: Material) -> str:
    """What the page is called."""
    result = material.result
    name = material.job.name or result.strategy_name
    return f"{'IN-SAMPLE: ' if result.in_sample else ''}{name} on {result.symbol} {result.timeframe}"


def render(material: Material, library: str) -> str:
    """Make the page.

    Parameters
    ----------
    material : Material
    library : str
        The source of plotly.js.

    Returns
    -------
    str
        HTML; the same material gives the same text.
    """
    charts: dict[str, Chart] = {}
    body = joined(_head(material), el("main", _sections(material, charts)), _foot())
    specs = json.dumps({name: chart.spec for name, chart in charts.items()}, separators=(",", ":"), allow_nan=False)
    library = library.replace("\r\n", "\n").replace("</script", "<\\/script")
    script = _own("page.js")
    return "<!DOCTYPE html>\n" + el(
        "html",
        el(
            "head",
            el("meta", charset="utf-8"),
            el("meta", http_equiv="Content-Security-Policy", content=_policy(library, script)),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="color-scheme", content="light dark"),
            el("meta", name="robots", content="noindex"),
            el("title", title_of(material)),
            el("style", raw(_own("page.css"))),
        ),
        el(
            "body",
            body,
            el("script", raw(specs.replace("<", "\\u003c")), type="application/json", id="charts"),
            el("script", raw(library)),
            el("script", raw(script)),
        ),
        lang="en",
    )


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def _head(material: Material) -> Markup:
    result = material.result
    window = result.window
    how = "IN-SAMPLE" if result.in_sample else NEVER_SEEN
    subtitle = (
        f"{result.symbol} {result.timeframe} · {window.first[:10]} to {window.last[:10]} · {window.bars:,} bars · "
        f"{result.capital:,.0f} at the start · {result.commission_bps:g} + {result.slippage_bps:g} bps a leg (commission + slippage)"
    )
    banner: Child = ()
    if result.in_sample:
        banner = el(
            "p", el("strong", "IN-SAMPLE."),
            f" The model has learned from {window.seen_bars:,} of these {window.bars:,} bars. The figures say nothing about the future.",
            class_="banner", role="alert",
        )  # fmt: skip
    return el(
        "header",
        el("p", "Backtest report", class_="kind"),
        el("h1", material.job.name or result.strategy_name, " ", el("span", how, class_="badge bad" if result.in_sample else "badge")),
        el("p", subtitle, class_="subtitle"),
        banner,
    )


def _sections(material: Material, charts: dict[str, Chart]) -> list[Child]:
    result, training = material.result, material.training
    years = monthly(material.equity.closes, material.equity.equity, result.capital, result.timeframe, classify(result.symbol))
    parts: list[Child] = [sections.headlines(material), _warnings(material)]
    parts.append(sections.section("Course of the account", _figure("course", course(material), charts), id_="account"))
    parts.append(sections.months(years, result.window.first[:10], result.window.last[:10]))
    if len(material.trades):
        chart = _figure("distribution", distribution(material.trades), charts)
        parts.append(sections.section("Trades", chart, sections.extremes(material.trades), id_="trades"))
    parts.append(sections.figures(material))
    if training is not None:
        curves = [_figure(f"history-{index}", chart, charts) for index, chart in enumerate(history(training))]
        stopped = "stopped early" if training.stopped_early else "not stopped early"
        words = f"{training.epochs_run} epochs, {stopped}; the model is that of epoch {training.best_epoch}, the dashed line."
        blocks: list[Child] = [el("p", words), el("div", curves, class_="columns"), sections.scores(training), sections.parts(training)]
        parts.append(sections.section("Training of the model", *blocks, id_="training"))
    else:
        parts.append(sections.section("Training of the model", el("p", "It is not known to the broker any more."), id_="training"))
    return [*parts, sections.conventions(material), sections.provenance(material)]


def _warnings(material: Material) -> Child:
    texts = [*material.result.warnings, *(f"Training: {text}" for text in (material.training.warnings if material.training else []))]
    texts += material.notes
    return el("ul", (el("li", text) for text in texts), class_="warnings", aria_label="Warnings") if texts else ()


def _figure(name: str, chart: Chart, charts: dict[str, Chart]) -> Markup:
    charts[name] = chart
    height = f"min-height: {chart.spec['layout']['height']}px"
    return el(
        "figure",
        el("div", id=f"chart-{name}", class_="chart", role="img", aria_label=chart.summary, style=height),
        el("figcaption", chart.summary, (joined(" ", note) for note in chart.notes)),
    )


def _foot() -> Markup:
    words = "Made by ktrdr-zmq on a worker. This page is complete: it loads nothing, and works without a network."
    return el("footer", el("p", words), el("noscript", el("p", "Without JavaScript there are no charts; all figures are in the tables.")))
