"""From what a person says to a job: the bodies and inputs of trainings and backtests. No sockets.

Checks what can be checked without the data: the strategy's grammar, names, dates, numbers. The bars travel as the file's octets; parsing
them is the worker's work.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ktrdr_zmq.datasets import Dataset, check_symbol, find
from ktrdr_zmq.errors import UnknownJob, UsageError
from ktrdr_zmq.handles import JobRequest
from ktrdr_zmq.jobs import TERMINAL, JobState

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.handles import AsyncJob
    from ktrdr_zmq.views import JobInfo


class Bars(NamedTuple):
    """A file of bars or its digest, and what the job says about it."""

    source: Path | str
    origin: dict[str, str]


def training(
    strategy: str, symbol: str | Sequence[str] | None = None, timeframe: str | None = None, *, start: str | None = None,
    end: str | None = None, overrides: Mapping[str, Any] | None = None, data_dir: str | Path | None = None, known: Sequence[Dataset] = (),
    name: str | None = None, **options: Any,
) -> JobRequest:  # fmt: skip
    """A training.

    Parameters
    ----------
    strategy : str
        A strategy's name, the path of its file, or its YAML text.
    symbol : str or sequence of str, optional
        What to train on instead of the strategy's own, for example ``EURUSD``; several make one model of all of them.
    timeframe : str, optional
        Whose bars to decide on, for example ``1h``. Of a strategy with several timeframes it must be one.
    start, end : str, optional
        First and last day or moment (ISO 8601; UTC where no offset is given); all bars by default.
    overrides : dict, optional
        Values by key path, for example ``{"training.epochs": 5}``.
    data_dir : Path, optional
        Folder with bars of one's own, looked in first.
    known : sequence of Dataset
        Bars known to the cluster, looked in before the built-in ones.
    name : str, optional
        Name of the model; the strategy's by default.
    options
        Anything else that `JobRequest` takes.

    Raises
    ------
    UsageError
        When the strategy, the symbol or a date is none; every mistake in a strategy at once.
    """
    from ktrdr_zmq.strategy import find_strategy, parse_strategy, placement
    from ktrdr_zmq.strategy.timeframes import parse_timeframe

    if name is not None and (name == "last" or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", name)):
        raise UsageError(
            f"{name!r:.80} cannot name a model: a letter, then letters, digits, dots, dashes and underscores, at most 64, and not last."
        )
    text, source = (strategy, "strategy.yaml") if "\n" in strategy else find_strategy(strategy)
    symbols = _symbols(symbol)
    if timeframe is not None:
        parse_timeframe(timeframe)
    values = {**(overrides or {}), **placement(text, source, overrides or {}, symbols, timeframe)}
    parsed = parse_strategy(text, source, values)
    _named_in_file("symbol", parsed.symbols)
    _named_in_file("timeframe", parsed.timeframes)
    bars = [find_bars(one, parsed.timeframes, data_dir, known) for one in parsed.symbols]
    first, last = _window(start, end)
    body = {
        "schema": 1, "strategy": text, "strategy_name": parsed.name, "symbols": list(parsed.symbols), "timeframe": parsed.base,
        "timeframes": list(parsed.timeframes), "start": first, "end": last, "overrides": values, "data": [found.origin for found in bars],
    }  # fmt: skip
    names = ["data", *(f"data.{one}" for one in parsed.symbols[1:])]
    inputs = {key: found.source for key, found in zip(names, bars, strict=True)}
    options["labels"] = _with_origins(options.get("labels"), inputs, bars)
    return JobRequest(kind="training", body=body, inputs=inputs, name=name or parsed.name, **options)


def backtesting(
    model: JobInfo, trained: Mapping[str, Any], symbol: str | None = None, timeframe: str | None = None, *, start: str | None = None,
    end: str | None = None, capital: float = 100_000.0, commission_bps: float | None = None, slippage_bps: float | None = None,
    overrides: Mapping[str, Any] | None = None, data_dir: str | Path | None = None, known: Sequence[Dataset] = (),
    name: str | None = None, **options: Any,
) -> JobRequest:  # fmt: skip
    """A backtest of a trained model.

    Parameters
    ----------
    model : JobInfo
        The training that made it.
    trained : dict
        The training's result.
    symbol : str, optional
        What to test on; the first that the model was trained on by default.
    timeframe : str, optional
        Only for a check: the model reads bars of the timeframe that it was trained on.
    start, end : str, optional
        First and last day or moment (ISO 8601; UTC where no offset is given); by default what the model never saw.
    capital : float
        In units of the quote currency.
    commission_bps, slippage_bps : float, optional
        Costs in basis points for each leg; defaults by the symbol's class.
    overrides : dict, optional
        Values by key path in the strategy's sections ``decisions`` and ``risk``; everything else is part of the model.
    data_dir : Path, optional
        Folder with bars of one's own, looked in first.
    known : sequence of Dataset
        Bars known to the cluster, looked in before the built-in ones.

    Raises
    ------
    UsageError
        When something of this makes no sense.
    """
    from ktrdr_zmq.strategy import check_overrides

    bundle = next((artifact.digest for artifact in model.artifacts if artifact.name == "model"), None)
    if bundle is None:
        raise UsageError(f"Job {model.id[:8]} ({model.kind}, {model.state.value}) has no model.")
    for what, number, low, high in (
        ("capital", capital, 1e-6, 1e15), ("commission", commission_bps, 0.0, 1000.0), ("slippage", slippage_bps, 0.0, 1000.0),
    ):  # fmt: skip
        if number is not None and not low <= number <= high:
            unit = "" if what == "capital" else " basis points"
            raise UsageError(f"The {what} must be between {low:g} and {high:g}{unit}, not {number:g}.")
    check_overrides(overrides or {})
    if timeframe is not None and timeframe != trained["timeframe"]:
        raise UsageError(f"The model decides on bars of {trained['timeframe']}, not of {timeframe}: train one for that timeframe.")
    if symbol is not None and len(_symbols(symbol)) > 1:
        raise UsageError(f"A backtest is of one symbol, not of {symbol}.", hint="Submit one for each.")
    wanted = symbol or str(trained["symbols"][0])
    bars = find_bars(wanted, trained["timeframes"], data_dir, known)
    first, last = _window(start, end)
    body = {
        "schema": 1, "symbol": wanted, "timeframe": trained["timeframe"], "start": first, "end": last, "capital": float(capital),
        "commission_bps": commission_bps, "slippage_bps": slippage_bps, "overrides": dict(overrides or {}), "data": [bars.origin],
    }  # fmt: skip
    inputs = {"data": bars.source, "model": bundle}
    options["labels"] = _with_origins(options.get("labels"), inputs, [bars])
    return JobRequest(kind="backtesting", body=body, inputs=inputs, name=name or model.name, **options)


async def find_model(client: AsyncClient, model: AsyncJob | str) -> JobInfo:
    """The training behind a job, a reference, NAME (the newest of that name) or NAME@N (the N-th oldest); waits for one that still runs.

    Raises
    ------
    UsageError
        When there is no such model, or its training did not succeed.
    """
    if isinstance(model, str) and model == "last":
        model = await _latest(client)
    if not isinstance(model, str):
        if not hasattr(model, "status"):
            raise UsageError(f"{model!r:.80} is no model: give a job, its id, last, NAME or NAME@N.")
        job = model
    else:
        try:
            job = await client.job(model)
        except UnknownJob:
            return await _named(client, model)
    info = await job.status()
    if info.state not in TERMINAL:
        info = await job.wait()
    if info.kind != "training" or info.state is not JobState.DONE:
        raise UsageError(
            f"Job {info.id[:8]} is no trained model: {info.kind}, {info.state.value}.", hint="See them with: ktrdr models list"
        )
    return info


async def _latest(client: AsyncClient) -> AsyncJob:
    """The newest training that is done or under way."""
    for info in await client.jobs(kinds=["training"], limit=1000):
        if info.state not in TERMINAL or info.state is JobState.DONE:
            return await client.job(info.id)
    raise UsageError("There is no trained model yet.", hint="Train one with: ktrdr models train --strategy neuro_mean_reversion")


async def _named(client: AsyncClient, model: str) -> JobInfo:
    name, _, version = model.partition("@")
    if version and not (version.isdigit() and int(version) > 0):
        raise UsageError(f"{model!r} is no model: a version is a whole number from 1, as in {name}@1.")
    found = await client.jobs(states=["done"], kinds=["training"], name=name, limit=10_000)
    if not found:
        raise UsageError(f"There is no model {model!r}.", hint="See them with: ktrdr models list")
    if int(version or 1) > len(found):
        raise UsageError(f"There is no {model}: {name} has versions 1 to {len(found)}.")
    return found[-int(version)] if version else found[0]


def find_bars(symbol: str, timeframes: Sequence[str], data_dir: str | Path | None, known: Sequence[Dataset] = ()) -> Bars:
    """The file to take bars from: one's own, then those known to the cluster, then the built-in ones; see `ktrdr_zmq.datasets.find`."""
    found = find(symbol, timeframes, data_dir, known)
    return Bars(
        found.source, {"symbol": symbol, "timeframe": found.timeframe, "filename": found.filename, "origin": found.origin}
    )  # fmt: skip


def _with_origins(labels: Mapping[str, str] | None, inputs: Mapping[str, Any], bars: Sequence[Bars]) -> dict[str, str]:
    """Labels that say where a job's bars come from, beside a person's own."""
    return {name: f"{found.origin['filename']} {found.origin['origin']}" for name, found in zip(inputs, bars, strict=False)} | dict(
        labels or {}
    )


def _symbols(given: str | Sequence[str] | None) -> list[str]:
    """The symbols that a command names; a text may name several, with commas.

    Raises
    ------
    UsageError
        When one is no symbol, or is there twice.
    """
    words = [given] if isinstance(given, str) else list(given or ())
    found = [part.strip() for word in words for part in word.split(",")]
    for index, symbol in enumerate(found):
        check_symbol(symbol)
        if symbol in found[:index]:
            raise UsageError(f"The symbol {symbol} is named twice.")
    return found


def _named_in_file(what: str, names: Sequence[str]) -> None:
    if not names:
        raise UsageError(f"The strategy names no {what}; say which.", hint=f"Use --{what}.")


def _window(start: str | None, end: str | None) -> tuple[str | None, str | None]:
    """The moments from which and before which bars are used; a day as end is used whole."""
    first, last = _moment(start, "start"), _moment(end, "end")
    if last is not None and end is not None:
        with contextlib.suppress(ValueError):
            last = dt.datetime.combine(dt.date.fromisoformat(end.strip()) + dt.timedelta(days=1), dt.time(), dt.UTC)
    if first is not None and last is not None and first >= last:
        raise UsageError(f"The start {start} does not lie before the end {end}.")
    return (first.isoformat() if first else None, last.isoformat() if last else None)


def _moment(text: str | None, what: str) -> dt.datetime | None:
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"The {what} {text!r} is no date; write it as 2017-06-30.") from None
    if not 1900 <= moment.year < 2200:
        raise UsageError(f"The {what} {text!r} lies outside the years 1900 to 2199.")
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
