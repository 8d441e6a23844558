"""The report of a backtest: its figures are those of the result, nothing in it is markup by accident, and nothing comes from outside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr_worker.handler import JobError, JobInterrupted
from ktrdr_worker.jobs.backtesting import handler as backtesting
from ktrdr_worker.jobs.report import handler as report
from ktrdr_worker.jobs.training import handler as training
from ktrdr_worker.trading.bars import DataError
from ktrdr_worker.trading.report import charts, material, series
from ktrdr_worker.trading.report.markup import el, joined
from ktrdr_worker.trading.report.material import Material, Ran
from ktrdr_worker.trading.report.page import render
from ktrdr_zmq import payload
from ktrdr_zmq.errors import NewerSchema, PayloadError
from ktrdr_zmq.figures import figure, label
from ktrdr_zmq.results import BACKTEST_METRICS, CLASSIFICATION_METRICS, BacktestResult, ReportResult, TrainingResult
from ktrdr_zmq.strategy.symbols import CRYPTO, FOREX, STOCK
from tests.unit.trading.made import walk
from tests.unit.trading.test_jobs import SAMPLE, Context, body, test_body

pytestmark = pytest.mark.timeout(120)

LIBRARY = "/* a chart library */"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """A page as a tree of what it has: complains about tags that do not close, keeps tags, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    @property
    def visible(self) -> str:
        return " ".join(text for name, text in self.texts if name not in ("script", "style"))

    @property
    def charts(self) -> dict[str, Any]:
        return dict(json.loads(self.of("script")[0]))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A training and two backtests of its model, one of them IN-SAMPLE, with what they left."""
    folder = tmp_path_factory.mktemp("done")
    context = Context(folder, data=SAMPLE.path)  # type: ignore[union-attr]
    trained = training.run(body(), context)
    found: dict[str, Any] = {"training": trained}
    for name, start in (("out", None), ("in", "2017-06-01T00:00:00+00:00")):
        tested = Context(folder, data=SAMPLE.path, model=context.artifacts["model"])  # type: ignore[union-attr]
        found[name] = (backtesting.run(test_body(start=start), tested), tested.artifacts)
    return found


def request(done: dict[str, Any], which: str = "out", **changes: Any) -> dict[str, Any]:
    """The body of the job."""
    job = {"id": "5a" * 16, "name": "mine", "labels": {"team": "fx"}, "submitter": "ada@lab", "worker_id": "tester", "tag": "cpu"}
    backtest, trained = {"job": job, "result": done[which][0]}, {"job": {**job, "id": "4b" * 16}, "result": done["training"]}
    return {"schema": 1, "backtest": backtest, "training": trained, **changes}


def inputs(done: dict[str, Any], which: str = "out") -> dict[str, Any]:
    return {"data": SAMPLE.path, "trades": done[which][1]["trades"], "equity": done[which][1]["equity"]}  # type: ignore[union-attr]


def pieces(done: dict[str, Any], which: str = "out", **changes: Any) -> Material:
    """The material of a page without the job around it."""
    result = BacktestResult.from_dict(done[which][0])
    equity = material.read_equity(done[which][1]["equity"], result)
    made = Material(
        job=Ran(id="5a" * 16, name="mine"), result=result, training=TrainingResult.from_dict(done["training"]),
        training_job=Ran(id="4b" * 16), equity=equity, trades=material.read_trades(done[which][1]["trades"], result), bars=None,
        software={"ktrdr-zmq": "0"}, notes=[],
    )  # fmt: skip
    return made._replace(**changes)


def page_of(done: dict[str, Any], which: str = "out", **changes: Any) -> Page:
    return Page(render(pieces(done, which, **changes), LIBRARY))


# ---------------------------------------------------------------- the job


def test_the_job_makes_a_page_and_says_what_is_in_it(done: dict[str, Any], tmp_path: Path) -> None:
    context = Context(tmp_path, **inputs(done))
    result = ReportResult.from_dict(payload.unpack(payload.pack(report.run(request(done), context))))
    octets = context.artifacts["report"]
    assert result.report_digest == hashlib.sha256(octets).hexdigest()
    assert (result.octets, result.trades, result.bars) == (
        len(octets),
        done["out"][0]["metrics"]["trades"],
        done["out"][0]["window"]["bars"],
    )
    assert (result.backtest, result.training, result.with_prices, result.in_sample) == ("5a" * 16, "4b" * 16, True, False)
    assert result.warnings == []
    assert [share for share, _ in context.reported] == sorted(share for share, _ in context.reported)
    assert context.reported[-1][0] == 1.0
    assert b"plotly.js v" in octets
    again = Context(tmp_path, **inputs(done))
    assert report.run(request(done), again)["digest"] == result.digest
    assert again.artifacts["report"] == octets, "the same job gives the same page"


def test_a_page_of_a_backtest_whose_bars_or_training_are_gone(done: dict[str, Any], tmp_path: Path) -> None:
    given = inputs(done)
    del given["data"]
    context = Context(tmp_path, **given)
    result = report.run(request(done, training=None), context)
    assert (result["with_prices"], result["training"]) == (False, "")
    assert "neither prices nor buy and hold are drawn" in result["warnings"][0]
    page = Page(context.artifacts["report"].decode())
    assert result["warnings"][0] in page.visible
    assert "not known to the broker any more" in page.visible
    assert "y3" not in json.dumps(page.charts["course"]["data"])


def test_other_bars_than_those_of_the_backtest_are_not_drawn(done: dict[str, Any], tmp_path: Path) -> None:
    lines = SAMPLE.path.read_text().splitlines(keepends=True)  # type: ignore[union-attr]
    context = Context(tmp_path, **{**inputs(done), "data": "".join(lines[:-5]).encode()})
    assert report.run(request(done), context)["with_prices"] is False


@pytest.mark.parametrize(
    "name,change,said",
    [
        ("equity", lambda octets: octets.rsplit(b"\n", 2)[0] + b"\n", "not the one of this backtest"),
        ("equity", lambda octets: octets.replace(b"time,", b"when,", 1), "lacks the columns: time"),
        ("equity", lambda octets: b"", "cannot be read"),
        ("equity", lambda octets: octets.replace(b"Z,", b"?,", 1), "a time that is no time"),
        ("trades", lambda octets: octets.rsplit(b"\n", 2)[0] + b"\n", "not the one of this backtest"),
        (
            "trades",
            lambda octets: re.sub(rb"(\d),(long|short),", rb"\1,sideways,", octets, count=1),
            "a side or an exit reason that is none",
        ),
        ("trades", lambda octets: re.sub(rb",(long|short),\d", rb",\1,x", octets, count=1), "a size that is no number"),
    ],
)
def test_files_that_do_not_belong_to_the_result_or_are_damaged(
    done: dict[str, Any], tmp_path: Path, name: str, change: Any, said: str
) -> None:
    given = inputs(done)
    assert change(given[name]) != given[name]
    with pytest.raises(DataError, match=said):
        report.run(request(done), Context(tmp_path, **{**given, name: change(given[name])}))


def test_a_body_that_is_none_and_an_input_that_is_missing(done: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(JobError, match="body is not what"):
        report.run({"schema": 1}, Context(tmp_path, **inputs(done)))
    given = inputs(done)
    del given["trades"]
    with pytest.raises(JobError, match="without the input 'trades'"):
        report.run(request(done), Context(tmp_path, **given))
    job = {"id": "5a" * 16}
    with pytest.raises(NewerSchema):
        report.run({"backtest": {"job": job, "result": {**done["out"][0], "schema": 99}}}, Context(tmp_path, **inputs(done)))
    with pytest.raises(PayloadError):
        report.run({"backtest": {"job": job, "result": done["training"]}}, Context(tmp_path, **inputs(done)))


def test_a_report_stops_when_it_is_told_to(done: dict[str, Any], tmp_path: Path) -> None:
    context = Context(tmp_path, **inputs(done))
    context.stop_after = 0.3
    with pytest.raises(JobInterrupted):
        report.run(request(done), context)
    assert context.artifacts == {}


# ---------------------------------------------------------------- what stands in it


@pytest.mark.parametrize("which", ["out", "in"])
def test_every_figure_is_that_of_the_result(done: dict[str, Any], which: str) -> None:
    text = render(pieces(done, which), LIBRARY)
    metrics = done[which][0]["metrics"]
    assert set(metrics) == set(BACKTEST_METRICS)
    for name, metric in BACKTEST_METRICS.items():
        row = re.search(rf'<th scope="row">{re.escape(html.escape(label(name)))}<small>(.*?)</small></th><td class="num">(.*?)</td>', text)
        assert row, name
        assert html.unescape(row[1]) == metric.meaning
        if metrics[name] is not None:
            assert html.unescape(row[2]) == figure(metrics[name], metric.unit), name


def test_an_undefined_figure_is_a_dash_with_its_reason(done: dict[str, Any]) -> None:
    made = pieces(done)
    nothing = msgspec.structs.replace(made.result.metrics, sharpe_ratio=None, profit_factor=None)
    text = render(made._replace(result=msgspec.structs.replace(made.result, metrics=nothing)), LIBRARY)
    for name in ("sharpe_ratio", "profit_factor"):
        cell = f'<span class="none">-</span><small>{html.escape(BACKTEST_METRICS[name].undefined)}</small>'
        assert text.count(f'<td class="num">{cell}</td>') == 1
        assert text.count(cell) == 2, "among the headlines too"


def test_the_test_part_stands_beside_the_baseline(done: dict[str, Any]) -> None:
    text = render(pieces(done), LIBRARY)
    trained = done["training"]
    for name, metric in CLASSIFICATION_METRICS.items():
        cells = re.search(rf'<th scope="row">{label(name)}<small>.*?</small></th>(.*?)</tr>', text)
        assert cells, name
        found = re.findall(r'<td class="num">(?:<span class="none">)?([^<]*)', cells[1])
        parts = [trained[part][name] for part in ("test", "baseline", "validation", "train")]
        assert [html.unescape(cell) for cell in found] == [figure(value, metric.unit) for value in parts]


def test_in_sample_cannot_be_overlooked(done: dict[str, Any]) -> None:
    flagged, clean = page_of(done, "in"), page_of(done, "out")
    assert flagged.of("title")[0].startswith("IN-SAMPLE: ")
    assert "IN-SAMPLE" in flagged.of("span")
    assert any(attributes.get("role") == "alert" for attributes in flagged.all("p"))
    assert f"learned from {done['in'][0]['window']['seen_bars']:,} of these" in flagged.visible
    layout = flagged.charts["course"]["layout"]
    assert [note["text"] for note in layout["annotations"]] == ["IN-SAMPLE"]
    (shade,) = layout["shapes"]
    assert shade["x0"] >= "2017-06-01"
    assert shade["x1"].replace(" ", "T") == done["training"]["validation_part"]["label_end"][:16], "the part that was learned from"
    assert "IN-SAMPLE" not in clean.text
    assert clean.charts["course"]["layout"]["shapes"] == []
    assert "the model never saw these bars" in clean.visible


def test_provenance_conventions_and_warnings_are_there(done: dict[str, Any]) -> None:
    visible = page_of(done).visible
    result = done["out"][0]
    for text in (
        "5a" * 16, "4b" * 16, result["data"]["digest"], result["model_digest"], done["training"]["config_digest"],
        result["fingerprint"]["torch"], "EURUSD_1h.csv", *result["warnings"], result["conventions"]["fill"],
        done["training"]["conventions"]["split"],
        *(f"Training: {text}" for text in done["training"]["warnings"]),
    ):  # fmt: skip
        assert text in visible


def test_tables_have_captions_and_headers_and_the_page_a_language(done: dict[str, Any]) -> None:
    page = page_of(done)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table")) >= 7
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    for figure_ in page.all("figure"):
        assert figure_ == {}
    drawn = [attributes for attributes in page.all("div") if attributes.get("class") == "chart"]
    assert {attributes["id"] for attributes in drawn} == {f"chart-{name}" for name in page.charts}
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawn)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


# ---------------------------------------------------------------- nothing from outside


def test_the_page_refers_to_nothing_outside_itself(done: dict[str, Any]) -> None:
    text = render(pieces(done), LIBRARY)
    assert not re.search(r"https?:|[\"']//|@import|url\(|\bsrc=|\bhref=", text.replace(LIBRARY, ""))
    assert {tag for tag, _ in Page(text).tags}.isdisjoint({"link", "img", "iframe", "object", "embed", "base", "form", "a"})


def test_the_policy_allows_the_scripts_of_the_page_and_nothing_else(done: dict[str, Any], tmp_path: Path) -> None:
    context = Context(tmp_path, **inputs(done))
    report.run(request(done), context)
    page = Page(context.artifacts["report"].decode())
    (policy,) = [tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    _, library, own = page.of("script")
    digests = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in (library, own)]
    assert f"script-src {' '.join(digests)};" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    assert "\r" not in library, "a browser would read another text than the digest is of"


HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\'"&<!--]]>\u2028'


def test_what_people_wrote_is_text_and_never_markup(done: dict[str, Any]) -> None:
    made = pieces(done)
    data = msgspec.structs.replace(made.result.data, filename=HOSTILE, origin=HOSTILE)
    window = msgspec.structs.replace(made.result.window, first=HOSTILE)
    result = msgspec.structs.replace(
        made.result, strategy_name=HOSTILE, symbol=HOSTILE, data=data, overrides={HOSTILE: HOSTILE}, conventions={HOSTILE: HOSTILE},
        warnings=[HOSTILE], fingerprint={HOSTILE: HOSTILE}, device=HOSTILE, window=window,
    )  # fmt: skip
    trained = msgspec.structs.replace(
        made.training,
        feature_ids=[HOSTILE],
        classes=[HOSTILE] * 3,
        majority_class=HOSTILE,
        conventions={HOSTILE: [HOSTILE]},
        warnings=[HOSTILE],
    )
    job = Ran(id=HOSTILE, name=HOSTILE, labels={HOSTILE: HOSTILE}, submitter=HOSTILE, worker_id=HOSTILE, tag=HOSTILE, submitted=HOSTILE)
    bars = walk(len(made.equity.closes))._replace(closes=made.equity.closes)
    hostile = Page(render(made._replace(job=job, training_job=job, result=result, training=trained, bars=bars, notes=[HOSTILE]), LIBRARY))
    friendly = Page(render(made._replace(bars=bars), LIBRARY))
    assert {tag for tag, _ in hostile.tags} == {tag for tag, _ in friendly.tags}
    allowed = {name for _, attributes in friendly.tags for name in attributes}
    assert {name for _, attributes in hostile.tags for name in attributes} == allowed
    assert len(hostile.all("script")) == 3
    assert hostile.visible.count(HOSTILE) > 20
    for value in strings(hostile.charts):
        assert "<script" not in value
        assert "<img" not in value


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@settings(max_examples=40)
@given(st.text(), st.text())
def test_an_element_holds_any_text_as_text(text: str, attribute: str) -> None:
    page = Page(el("p", text, title=attribute))
    assert [tag for tag, _ in page.tags] == ["p"]
    normal = "".join(part for _, part in page.texts)
    assert normal == text.replace("\r\n", "\n").replace("\r", "\n") or html.escape(text) in joined(el("p", text))


# ---------------------------------------------------------------- what is drawn


def test_the_charts_are_such_as_the_library_knows(done: dict[str, Any], tmp_path: Path) -> None:
    for which in ("out", "in"):
        context = Context(tmp_path, **inputs(done, which))
        report.run(request(done, which), context)
        drawn = Page(context.artifacts["report"].decode()).charts
        assert set(drawn) == {"course", "distribution", "history-0", "history-1"}
        for spec in drawn.values():
            go.Figure(spec)  # refuses what it does not know


def test_the_curves_end_where_the_result_says(done: dict[str, Any], tmp_path: Path) -> None:
    context = Context(tmp_path, **inputs(done))
    report.run(request(done), context)
    traces = {
        trace["name"]: trace for trace in Page(context.artifacts["report"].decode()).charts["course"]["data"] if trace["mode"] == "lines"
    }
    metrics = done["out"][0]["metrics"]
    assert traces["strategy"]["y"][-1] == pytest.approx(metrics["equity_final"], rel=1e-6)
    assert traces["buy and hold"]["y"][-1] == pytest.approx(100_000 * (1 + metrics["buy_hold_return"]), rel=1e-6)
    assert min(traces["drawdown"]["y"]) == pytest.approx(metrics["max_drawdown"], rel=1e-6)


def test_each_trade_is_marked_with_its_facts(done: dict[str, Any]) -> None:
    made = pieces(done)
    marks = [trace for trace in charts.course(made).spec["data"] if trace["mode"] == "markers"]
    assert sum(len(trace["x"]) for trace in marks) == 2 * made.result.metrics.trades
    first = made.trades.iloc[0]
    entry = next(trace for trace in marks if trace["name"] == f"{first['side']} entry")
    assert f"{first['pnl']:+,.2f}" in entry["text"][0]
    assert f"at {first['entry_price']:,.6g}" in entry["text"][0]


def test_of_very_many_trades_the_largest_are_marked_and_it_is_said(done: dict[str, Any]) -> None:
    made = pieces(done)
    trades = pd.concat([made.trades] * 3000, ignore_index=True).iloc[:3000]
    trades["pnl"] = np.linspace(-1.0, 1.0, len(trades))
    trades.loc[1500, "pnl"] = 1e6
    chart = charts.course(made._replace(trades=trades))
    marks = [trace for trace in chart.spec["data"] if trace["mode"] == "markers"]
    assert sum(len(trace["x"]) for trace in marks) == 2 * charts.TRADES_DRAWN
    assert any("+1,000,000.00" in text for trace in marks for text in trace["text"])
    assert chart.notes == [f"Of {len(trades):,} trades the 1,000 with the largest profit or loss are marked."]


@given(st.lists(st.floats(-1, 10, allow_nan=False, width=32), min_size=1, max_size=50))
def test_no_class_of_trades_has_profits_and_losses(returns: list[float]) -> None:
    (bars,) = charts.distribution(pd.DataFrame({"pnl_pct": returns})).spec["data"]
    assert sum(bars["y"]) == len(returns)
    won = [count for count, colour in zip(bars["y"], bars["marker"]["color"], strict=True) if "good" in colour]
    assert sum(won) == sum(value >= 0 for value in returns) or min(abs(value) for value in returns) < 1e-6
    assert len(bars["y"]) <= charts.BINS + 4


def test_a_backtest_without_trades_has_a_page(done: dict[str, Any]) -> None:
    made = pieces(done)
    page = Page(render(made._replace(trades=made.trades.iloc[:0]), LIBRARY))
    assert "distribution" not in page.charts
    go.Figure(page.charts["course"])


@given(st.integers(1, 4000), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_thinning_loses_no_peak(count: int, buckets: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=count)
    kept = series.thin(values, buckets)
    assert (np.diff(kept) > 0).all()
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert len(kept) <= 4 * buckets
    assert values[kept].max() == values.max()
    assert values[kept].min() == values.min()
    edges = np.linspace(0, count, buckets + 1).astype(int) if count > 4 * buckets else np.arange(count + 1)
    for begin, end in zip(edges, edges[1:], strict=False):
        inside = kept[(kept >= begin) & (kept < end)]
        assert (values[inside].min(), values[inside].max()) == (values[begin:end].min(), values[begin:end].max())


def test_a_page_of_a_million_bars_stays_small(done: dict[str, Any]) -> None:
    made = pieces(done)
    count = 1_000_000
    bars = walk(count, symbol="EURUSD", timeframe="1m", volatility=0.0002)
    equity = 100_000 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 1e-4, count)))
    equity[777_777] *= 3  # a spike of one bar
    curve = material.Equity(bars.closes, equity, equity / np.maximum.accumulate(equity) - 1)
    trades = pd.concat([made.trades] * 600, ignore_index=True)
    result = msgspec.structs.replace(made.result, timeframe="1m", window=msgspec.structs.replace(made.result.window, bars=count))
    text = render(made._replace(result=result, equity=curve, bars=bars, trades=trades), LIBRARY)
    assert len(text) < 3_000_000  # the library is 5 million more
    page = Page(text)
    drawn = next(trace for trace in page.charts["course"]["data"] if trace["name"] == "strategy")
    assert max(drawn["y"]) == pytest.approx(equity[777_777], rel=1e-6)
    assert "Curves of 1,000,000 bars are drawn by the first, lowest, highest and last value of each of 1,500 stretches" in page.visible


# ---------------------------------------------------------------- months


def moments(*texts: str) -> np.ndarray:
    return pd.DatetimeIndex(texts).to_numpy().astype("datetime64[ns]").astype(np.int64)


def test_months_by_hand() -> None:
    """A forex session begins at 17:00 New York: what closes at 23:00 UTC on Tuesday, January 31st, is of February."""
    closes = moments("2017-01-30 12:00", "2017-01-31 20:00", "2017-01-31 23:00", "2017-02-27 12:00", "2017-12-29 12:00", "2018-01-02 10:00")
    equity = np.array([105.0, 110.0, 99.0, 121.0, 121.0, 60.5])
    first, second = series.monthly(closes, equity, 100.0, "1h", FOREX)
    assert (first.year, second.year) == (2017, 2018)
    assert first.months[:3] == [pytest.approx(0.10), pytest.approx(0.10), None]
    assert first.months[11] == pytest.approx(0.0)
    assert (first.total, second.total) == (pytest.approx(0.21), pytest.approx(-0.5))
    assert series.monthly(closes, equity, 100.0, "1h", CRYPTO)[0].months[:2] == [pytest.approx(-0.01), pytest.approx(121 / 99 - 1)]


def test_a_bar_of_a_day_belongs_to_its_date_and_one_of_a_week_to_its_end() -> None:
    days = moments("2017-02-01 00:00", "2017-02-02 00:00")  # closes of January 31st and February 1st
    assert series.monthly(days, np.array([110.0, 121.0]), 100.0, "1d", STOCK)[0].months[:2] == [pytest.approx(0.1), pytest.approx(0.1)]
    week = moments("2017-02-03 22:00")
    assert series.monthly(week, np.array([110.0]), 100.0, "1w", FOREX)[0].months[:2] == [None, pytest.approx(0.1)]


def test_a_lost_account_has_no_returns_afterwards() -> None:
    closes = moments("2017-01-10 12:00", "2017-02-10 12:00", "2018-02-10 12:00")
    years = series.monthly(closes, np.array([50.0, -10.0, -10.0]), 100.0, "1h", FOREX)
    assert years[0].months[:2] == [pytest.approx(-0.5), pytest.approx(-1.2)]
    assert years[1].months[1] is None
    assert years[1].total is None


@given(st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_the_months_multiply_to_the_total_return(count: int, seed: int) -> None:
    bars = walk(count, seed, timeframe="4h")
    years = series.monthly(bars.closes, bars.close, 0.9, "4h", FOREX)
    months = [month for year in years for month in year.months if month is not None]
    assert np.prod([1 + month for month in months]) == pytest.approx(bars.close[-1] / 0.9)
    assert np.prod([1 + year.total for year in years if year.total is not None]) == pytest.approx(bars.close[-1] / 0.9)


# ---------------------------------------------------------------- a browser

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_draws_every_chart_under_the_policy(done: dict[str, Any], tmp_path: Path) -> None:
    context = Context(tmp_path, **inputs(done))
    report.run(request(done), context)
    page = tmp_path / "report.html"
    page.write_bytes(context.artifacts["report"])
    argv = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000",
        "--enable-logging=stderr", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=True)
    assert ran.stdout.count('class="main-svg"') >= 4
    assert "CONSOLE" not in ran.stderr, "no violation of the policy, no error"
