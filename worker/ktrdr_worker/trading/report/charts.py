"""What the charts of a report show, as plain data for plotly.js. Knows neither HTML nor the library.

A colour is the name of a style variable (``var(--line)``), so that one set of data serves light, dark and paper.
"""

from __future__ import annotations

import html
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import moment
from ktrdr_worker.trading.report.material import Material
from ktrdr_worker.trading.report.series import thin
from ktrdr_zmq.results import EpochHistory, TrainingResult

TRADES_DRAWN: Final = 1000
"""More marks than that are a smear, and slow: the largest wins and losses are drawn, and it is said."""

BINS: Final = 40
REASONS: Final = {
    "signal": "signal", "stop_loss": "stop", "take_profit": "target", "max_holding": "holding limit", "ruin": "ruin",
    "end_of_data": "end of the window",
}  # fmt: skip

Spec = dict[str, Any]


class Chart(NamedTuple):
    """A chart and what it does not show of itself.

    Attributes
    ----------
    spec : dict
        ``data`` and ``layout`` of plotly.js.
    summary : str
        What it shows, for those who cannot see it.
    notes : list of str
        What was left out to make it drawable.
    """

    spec: Spec
    summary: str
    notes: list[str]


# ---------------------------------------------------------------- the course of the account


def course(material: Material) -> Chart:
    """Equity beside holding, the drawdown, and the price with the trades."""
    result, bars = material.result, material.bars
    times, rows = material.equity.closes, 3 if bars is not None else 2
    equity = material.equity.equity
    trades, notes = _drawn_trades(material.trades)
    data = [_line("strategy", times, equity, "var(--equity)", "y", width=2)]
    if bars is not None:
        data.append(_line("buy and hold", times, result.capital * bars.close / bars.close[0], "var(--hold)", "y", dash="dot"))
    at = np.clip(np.searchsorted(times, trades["entry_time"].to_numpy(), side="right") - 1, 0, None)
    until = np.clip(np.searchsorted(times, trades["exit_time"].to_numpy(), side="right") - 1, 0, None)
    data += _marks(trades, equity[at], equity[until], "y", legend=True)
    fall = _line("drawdown", times, material.equity.drawdown, "var(--bad)", "y2", hover="%{y:.2%}")
    data.append({**fall, "fill": "tozeroy", "fillcolor": "var(--bad-soft)", "showlegend": False})
    if bars is not None:
        data.append({**_line(f"{result.symbol} close", times, bars.close, "var(--price)", "y3", hover="%{y:,.6~g}"), "showlegend": False})
        data += _spans(trades)
        data += _marks(trades, trades["entry_price"].to_numpy(), trades["exit_price"].to_numpy(), "y3", legend=False)
    if any(len(trace["x"]) < len(times) for trace in data if trace["mode"] == "lines" and trace["name"] == "strategy"):
        notes.insert(0, f"Curves of {len(times):,} bars are drawn by the first, lowest, highest and last value of each of 1,500 stretches: "
                        "no peak and no trough is left out.")  # fmt: skip
    layout = _course_layout(material, rows)
    summary = (
        f"Equity from {result.capital:,.0f} to {result.metrics.equity_final:,.0f} with {result.metrics.trades:,} trades, its drawdown"
        + (f" and the price of {result.symbol}." if bars is not None else ".")
    )
    return Chart({"data": data, "layout": layout}, summary, notes)


def _course_layout(material: Material, rows: int) -> Spec:
    domains = [[0.56, 1.0], [0.38, 0.53], [0.0, 0.35]] if rows == 3 else [[0.32, 1.0], [0.0, 0.28]]
    titles = [("equity", ",.4~s"), ("drawdown", ".1~%"), (f"price of {html.escape(material.result.symbol)}", "")]
    layout: Spec = {
        "height": 760 if rows == 3 else 520,
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "font": {"size": 12}},
        "xaxis": {"type": "date", "anchor": f"y{rows}", "showgrid": False, "range": _texts(material.equity.closes[[0, -1]]), **_axis()},
        "shapes": [], "annotations": [],
    }  # fmt: skip
    for row, (domain, (title, form)) in enumerate(zip(domains, titles, strict=False), 1):
        layout[f"yaxis{row}" if row > 1 else "yaxis"] = {
            "domain": domain, "title": {"text": title, "font": {"size": 12}}, "tickformat": form, "automargin": True, **_axis(),
        }  # fmt: skip
    if material.result.in_sample:
        layout["annotations"].append({
            "text": "IN-SAMPLE", "xref": "paper", "yref": "paper", "x": 0.5, "y": sum(domains[0]) / 2, "showarrow": False, "opacity": 0.22,
            "font": {"size": 54, "color": "var(--bad)"},
        })  # fmt: skip
        layout["shapes"] += _seen(material)
    return layout


def _seen(material: Material) -> list[Spec]:
    """The part of the window that the model learned from, as a shade."""
    if material.training is None:
        return []
    first, last = material.equity.closes[0], material.equity.closes[-1]
    begin = max(moment(material.training.train_part.first), int(first))
    end = min(moment(material.training.validation_part.label_end), int(last))
    if begin >= end:
        return []
    return [{
        "type": "rect", "xref": "x", "yref": "paper", "x0": _text(begin), "x1": _text(end), "y0": 0, "y1": 1,
        "fillcolor": "var(--seen)", "line": {"width": 0}, "layer": "below",
    }]  # fmt: skip


def _drawn_trades(trades: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The trades to mark: all, or the largest."""
    if len(trades) <= TRADES_DRAWN:
        return trades, []
    largest = trades.loc[trades["pnl"].abs().nlargest(TRADES_DRAWN).index].sort_index()
    return largest, [f"Of {len(trades):,} trades the {TRADES_DRAWN:,} with the largest profit or loss are marked."]


def _marks(trades: pd.DataFrame, entries: Array, exits: Array, axis: str, *, legend: bool) -> list[Spec]:
    """Marks of entries and exits with the facts of the trade, those of a kind together."""
    facts = np.array([_facts(trade) for trade in trades.to_dict("records")], dtype=object)
    long, won = (trades["side"] == "long").to_numpy(), (trades["pnl"] > 0).to_numpy()
    small = float(np.clip(np.sqrt(150 / max(len(trades), 1)), 0.4, 1.0))  # so that many marks leave something to be seen of the curve
    kinds = (
        ("long entry", long, "entry_time", entries, "triangle-up", 12, "var(--long)"),
        ("short entry", ~long, "entry_time", entries, "triangle-down", 12, "var(--short)"),
        ("exit with profit", won, "exit_time", exits, "circle", 7, "var(--good)"),
        ("exit with loss", ~won, "exit_time", exits, "x", 7, "var(--bad)"),
    )
    return [
        {
            "type": "scatter", "mode": "markers", "name": name, "x": _texts(trades[column].to_numpy()[chosen]),
            "y": _numbers(values[chosen]), "yaxis": axis, "text": facts[chosen].tolist(), "hovertemplate": "%{text}<extra></extra>",
            "marker": {
                "symbol": symbol, "size": round(size * small, 1), "color": colour, "line": {"width": small, "color": "var(--paper)"},
            },
            "legendgroup": name, "showlegend": legend,
        }
        for name, chosen, column, values, symbol, size, colour in kinds
        if chosen.any()
    ]  # fmt: skip


def _facts(trade: dict[str, Any]) -> str:
    lines = (
        f"<b>{trade['side']}</b> {trade['size']:,.6g} units, {trade['bars_held']:,.0f} bars",
        f"in {_text(trade['entry_time'])} at {trade['entry_price']:,.6g}",
        f"out {_text(trade['exit_time'])} at {trade['exit_price']:,.6g} ({html.escape(REASONS.get(trade['exit_reason'], '?'))})",
        f"<b>{trade['pnl']:+,.2f}</b> ({trade['pnl_pct']:+.2%}), commission {trade['commission']:,.2f}",
        f"worst {trade['mae']:+.2%}, best {trade['mfe']:+.2%}",
    )
    return "<br>".join(lines)


def _spans(trades: pd.DataFrame) -> list[Spec]:
    """A line from each entry to its exit, over the price."""
    found = []
    for name, chosen, colour in (("profit", trades["pnl"] > 0, "var(--good)"), ("loss", trades["pnl"] <= 0, "var(--bad)")):
        some = trades[chosen]
        x = [text for pair in zip(_texts(some["entry_time"].to_numpy()), _texts(some["exit_time"].to_numpy()), strict=True)
             for text in (*pair, None)]  # fmt: skip
        y = [number for pair in zip(some["entry_price"].tolist(), some["exit_price"].tolist(), strict=True) for number in (*pair, None)]
        found.append({
            "type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "yaxis": "y3", "hoverinfo": "skip", "showlegend": False,
            "connectgaps": False, "line": {"color": colour, "width": 2},
        })  # fmt: skip
    return found


# ---------------------------------------------------------------- trades and training


def distribution(trades: pd.DataFrame) -> Chart:
    """How often trades won or lost how much."""
    returns = trades["pnl_pct"].to_numpy()
    low, high = min(float(returns.min()), 0.0), max(float(returns.max()), 0.0)
    width = max((high - low) / BINS, 1e-6)
    edges = width * np.arange(np.floor(low / width - 1e-9), np.ceil(high / width + 1e-9) + 1)  # 0 is an edge: no class has both
    counts, edges = np.histogram(returns, bins=edges)
    middles = (edges[:-1] + edges[1:]) / 2
    data = [{
        "type": "bar", "x": _numbers(middles), "y": counts.tolist(), "width": float(edges[1] - edges[0]) * 0.9,
        "marker": {"color": ["var(--good)" if middle > 0 else "var(--bad)" for middle in middles]},
        "hovertemplate": "%{y} trades around %{x:+.2%}<extra></extra>", "showlegend": False,
    }]  # fmt: skip
    layout = {
        "height": 280,
        "bargap": 0,
        "xaxis": {"tickformat": "+.1~%", "title": {"text": "PnL over value at entry", "font": {"size": 12}}, **_axis()},
        "yaxis": {"title": {"text": "trades", "font": {"size": 12}}, "automargin": True, **_axis()},
    }
    return Chart({"data": data, "layout": layout}, f"Returns of {len(trades):,} trades, counted in {len(counts)} classes.", [])


def history(training: TrainingResult) -> list[Chart]:
    """Curves over the epochs: one chart for each figure that was kept for the training and the validation part."""
    columns: EpochHistory = training.history
    names = [name.removeprefix("train_") for name in columns.__struct_fields__ if name.startswith("train_")]
    return [_epochs(training, name) for name in names if getattr(columns, f"validation_{name}", None)]


def _epochs(training: TrainingResult, name: str) -> Chart:
    columns = training.history
    data = [
        {
            "type": "scatter", "mode": "lines+markers" if len(columns.epoch) < 40 else "lines", "name": part, "x": columns.epoch,
            "y": getattr(columns, f"{part}_{name}"), "line": {"color": colour, "width": 2}, "marker": {"size": 5},
            "hovertemplate": "epoch %{x}: %{y:.4f}<extra>" + part + "</extra>",
        }
        for part, colour in (("train", "var(--hold)"), ("validation", "var(--equity)"))
    ]  # fmt: skip
    best = {
        "type": "line", "xref": "x", "yref": "paper", "x0": training.best_epoch, "x1": training.best_epoch, "y0": 0, "y1": 1,
        "line": {"color": "var(--good)", "width": 1, "dash": "dash"},
    }  # fmt: skip
    word = name.replace("_", " ")
    layout = {
        "height": 280, "hovermode": "x unified", "shapes": [best],
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "xaxis": {"title": {"text": "epoch", "font": {"size": 12}}, **_axis()},
        "yaxis": {"title": {"text": word, "font": {"size": 12}}, "automargin": True, **_axis()},
    }  # fmt: skip
    summary = f"The {word} on training and validation part over {len(columns.epoch)} epochs; epoch {training.best_epoch} is the model's."
    return Chart({"data": data, "layout": layout}, summary, [])


# ---------------------------------------------------------------- pieces


def _axis() -> Spec:
    return {"gridcolor": "var(--grid)", "zerolinecolor": "var(--grid)", "linecolor": "var(--grid)", "tickfont": {"size": 11}}


def _line(name: str, times: Array, values: Array, colour: str, axis: str, *, width: float = 1.3, dash: str = "solid",
          hover: str = "%{y:,.2f}") -> Spec:  # fmt: skip
    kept = thin(values)
    return {
        "type": "scatter", "mode": "lines", "name": html.escape(name), "x": _texts(times[kept]), "y": _numbers(values[kept]), "yaxis": axis,
        "line": {"color": colour, "width": width, "dash": dash},
        "hovertemplate": "%{x|%Y-%m-%d %H:%M} UTC<br>" + hover + f"<extra>{html.escape(name)}</extra>",
    }  # fmt: skip


def _texts(nanoseconds: Array) -> list[str]:
    """Times as plotly reads them; it knows no zones, and these are UTC."""
    texts: list[str] = pd.DatetimeIndex(np.asarray(nanoseconds).astype("datetime64[ns]")).strftime("%Y-%m-%d %H:%M").tolist()
    return texts


def _text(nanoseconds: int) -> str:
    return _texts(np.array([nanoseconds]))[0]


def _numbers(values: Array) -> list[float]:
    """Seven digits are more than a screen can show."""
    return [float(f"{value:.7g}") for value in values.tolist()]
