"""The kind ``backtesting``: a model and bars in, figures, trades and an equity curve out. Glue between the framework and the science."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ktrdr_worker.handler import JobContext, JobError
from ktrdr_worker.jobs.inputs import Market, Request, data_used, input_of, markets, steps, window
from ktrdr_worker.trading import bundle, learning
from ktrdr_worker.trading.backtest import END_OF_DATA, Rules, simulate
from ktrdr_worker.trading.bars import DataError, cut, moment, periods_per_year, session_end, stamp
from ktrdr_worker.trading.decisions import decide
from ktrdr_worker.trading.fingerprint import fingerprint
from ktrdr_worker.trading.inference import predict
from ktrdr_worker.trading.performance import Clock, measure
from ktrdr_worker.trading.tables import write_equity, write_trades
from ktrdr_zmq import results
from ktrdr_zmq.strategy.schema import Decisions, Risk
from ktrdr_zmq.strategy.symbols import bare, classify

BASIS_POINT = 1e-4


class Backtesting:
    """Backtests a trained model."""

    kind = "backtesting"
    versions = (1, 1)

    def warm_up(self) -> None:
        """Compile the kernel, so that no job has to wait for that."""
        price = np.array([1.0, 2.0])
        outcome = simulate(price, price, price, price, np.zeros(2, dtype=np.int8), Rules(1.0))
        measure(outcome, price, Clock(np.arange(2), np.arange(1, 3), np.arange(2), 252.0), 1.0)
        decide(np.full((2, 3), np.nan), Decisions())

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Backtest the model in the inputs as ``body`` says, which `ktrdr_zmq.recipes.backtesting` makes; see `BacktestResult`."""
        begun = time.monotonic()
        learning.prepare(context.threads)
        request = Request.read(body)
        model = bundle.load(input_of(context, "model").read_bytes(), request.overrides)
        strategy, seen = model.strategy, model.description.seen
        if request.timeframe != strategy.base:
            raise JobError(f"The model decides on bars of {strategy.base}, not of {request.timeframe}.")
        tick = steps(context, 0.05, 0.25, "bars")
        market = markets(context, request, [request.symbol], strategy.timeframes, strategy.base, tick)[0]
        bars = market.frames.bars
        tick = steps(context, 0.25, 0.6, "inference", f"{len(bars.opens):,} bars")
        probabilities, warmup = predict(model, market.frames, context.device, tick)
        known = bare(request.symbol) in map(bare, seen.data) or market.digest in seen.data.values()
        first, last = _window(market, request, seen, warmup, known=known)
        steps(context, 0.6, 0.7, "backtest", f"{last - first:,} bars")(0.0)
        traded = cut(bars, first, last)
        decisions = decide(probabilities[first:last], strategy.decisions)
        rules = rules_of(request, strategy.decisions, strategy.risk)
        outcome = simulate(traded.open, traded.high, traded.low, traded.close, decisions, rules)
        year = periods_per_year(request.timeframe, classify(request.symbol))
        metrics = measure(outcome, traded.close, Clock(traded.opens, traded.closes, traded.sessions, year), rules.capital)
        tables = {
            "trades": write_trades(context.work_dir / "trades", outcome, traded, steps(context, 0.7, 0.75, "trades")),
            "equity": write_equity(context.work_dir / "equity", outcome, traded, rules.capital, steps(context, 0.75, 1.0, "equity")),
        }
        artifacts = {name: context.add_artifact(name, path, "text/csv") for name, path in tables.items()}
        open_at_end = bool(len(outcome.trades)) and int(outcome.trades["exit_reason"][-1]) == END_OF_DATA
        within = (traded.opens >= moment(seen.since)) & (traded.opens < moment(seen.until))
        overlap = int(np.sum(within))
        seen_bars = overlap if known else 0
        context.progress(1.0, stage="done")
        return results.BacktestResult(
            strategy_name=strategy.name, symbol=request.symbol, timeframe=strategy.base, timeframes=list(strategy.timeframes),
            overrides={**dict(model.description.overrides), **request.overrides},
            data=data_used(market, first, last),
            window=results.Window(
                first=stamp(traded.opens[0]), last=stamp(traded.opens[-1]), bars=len(traded.opens),
                chosen=request.start is not None or request.end is not None, seen_bars=seen_bars,
            ),
            in_sample=seen_bars > 0, capital=rules.capital, commission_bps=rules.commission / BASIS_POINT,
            slippage_bps=rules.slippage / BASIS_POINT, metrics=metrics,
            signals={name: int(np.sum(decisions == value)) for name, value in (("SELL", -1), ("HOLD", 0), ("BUY", 1))},
            open_at_end=open_at_end, model_digest=context.input_digests["model"], artifacts=artifacts, device=context.device,
            duration_s=time.monotonic() - begun, fingerprint=fingerprint(context.device),
            conventions=_conventions(request, rules, year, warmup, seen_bars),
            warnings=market.warnings + _elsewhere(overlap - seen_bars, seen)
            + _warnings(metrics, seen_bars, open_at_end, len(np.unique(traded.sessions)), year, _period(request)),
            digest="",
        ).sealed().to_dict()  # fmt: skip


def _elsewhere(overlap: int, seen: bundle.Seen) -> list[str]:
    """Another symbol at the same time is no independent test."""
    return [f"{overlap:,} of these bars are of the time in which the model learned from {', '.join(seen.data)}."] if overlap else []


def _window(market: Market, request: Request, seen: bundle.Seen, warmup: int, *, known: bool) -> tuple[int, int]:
    """The bars to trade on: as asked for, else what the model never learned from; never those without features."""
    bars = market.frames.bars
    if request.start is None and request.end is None and known:
        first, last = int(np.searchsorted(bars.opens, moment(seen.until))), len(bars.opens)
        if first >= last:
            raise DataError(
                f"The model has learned from all bars of {request.symbol} {request.timeframe} that there are (until {seen.until}).",
                hint="Give other bars with --data-dir, or name a window with --start and --end: it will be flagged IN-SAMPLE.",
            )
    else:
        first, last = window(market, request)
    first = max(first, warmup)
    if first >= last:
        raise DataError(
            f"No bar of the window can be decided on: the first {warmup:,} bars of {request.symbol} {request.timeframe} are warm-up of the "
            "indicators and the network, or asked for by training_data.history_required.",
            hint="Let the window end later, or give bars that begin earlier.",
        )
    return first, last


def rules_of(request: Request, decisions: Decisions, risk: Risk) -> Rules:
    """What the account does: costs from the command, else from the strategy, else what is usual for the symbol."""
    usual, own = classify(request.symbol), decisions.cost_model

    def cost(*choices: float | None) -> float:
        return next(choice for choice in choices if choice is not None) * BASIS_POINT

    return Rules(
        capital=request.capital, fraction=risk.position_fraction,
        commission=cost(request.commission_bps, own.commission_bps, usual.commission_bps),
        slippage=cost(request.slippage_bps, own.slippage_bps, usual.slippage_bps),
        allow_short=risk.allow_short, stop_loss=risk.stop_loss, take_profit=risk.take_profit, max_holding_bars=risk.max_holding_bars,
    )  # fmt: skip


def _conventions(request: Request, rules: Rules, year: int, warmup: int, seen_bars: int) -> dict[str, Any]:
    timeframe, source, kind = request.timeframe, request.data[0].timeframe, classify(request.symbol)
    return {
        "fill": "decided at a bar's close, filled at the next open",
        "stops": "looked for inside each bar; a gap through a level fills at the open; both in one bar: the stop",
        "trade_times": "opens of the bars of the fills; an exit inside a bar has the time of that bar's open",
        "open_position": "closed at the last close, and counted as a trade",
        "commission": rules.commission,
        "slippage": rules.slippage,
        "costs": "fractions of each leg; both are part of a trade's PnL",
        "position_fraction": rules.fraction,
        "periods_per_year": year,
        "returns": f"of {_period(request)}, from equity at their last close",
        "session_ends": session_end(timeframe, source, kind),
        "ddof": 1,
        "risk_free_rate": 0.0,
        "warmup_bars": warmup,
        "in_sample_bars": seen_bars,
    }


def _period(request: Request) -> str:
    """What figures are made of returns of."""
    return "weeks" if request.timeframe == "1w" else "sessions"


def _warnings(metrics: results.BacktestMetrics, seen_bars: int, open_at_end: bool, count: int, year: int, period: str) -> list[str]:
    found = []
    if seen_bars:
        found.append(f"IN-SAMPLE: the model has learned from {seen_bars:,} of these bars; the figures say nothing about the future.")
    if metrics.trades < 30:
        found.append(f"Only {metrics.trades} trades: the figures say little.")
    if count < year:
        found.append(f"The window has {count} {period}, less than a year of {year}: annual figures say little.")
    if open_at_end:
        found.append("The last position was still open and was closed at the last close.")
    return found


handler = Backtesting()
