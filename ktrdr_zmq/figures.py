"""How figures are written for people: the same in the command line's tables and in reports. Pure; knows units, not metrics."""

from __future__ import annotations

from typing import Final

DASH: Final = "-"
"""Stands where there is no value."""

_NAMES: Final = {
    "mcc": "MCC", "macro_f1": "macro F1", "sqn": "SQN", "cagr": "CAGR", "mse": "MSE", "mae": "MAE", "r2": "R2",
    "ic": "IC", "rank_ic": "rank IC",
}  # fmt: skip


def label(name: str) -> str:
    """A metric's name for people."""
    return _NAMES.get(name, name.replace("_", " "))


def figure(value: float | None, unit: str) -> str:
    """A figure by its unit (``ktrdr_zmq.results.METRICS``): fractions in percent, undefined ones as a dash."""
    if value is None:
        return DASH
    if unit == "fraction":
        return f"{value:.2%}".replace("%", " %")
    if unit == "currency":
        return f"{value:,.2f}"
    if unit == "days":
        return f"{value:,.1f} d"
    if unit == "squared":
        return f"{value:.3g}"
    if unit in ("count", "bars"):
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    return f"{value:,.3f}"
