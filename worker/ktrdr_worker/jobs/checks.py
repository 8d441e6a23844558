"""The kinds ``check-lookahead`` and ``check-warmup``: a model and bars in, findings out. Glue between the framework and the science."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any, Final

from ktrdr_worker.handler import JobContext, JobError
from ktrdr_worker.jobs.backtesting import rules_of
from ktrdr_worker.jobs.inputs import Market, Request, data_used, input_of, markets, steps
from ktrdr_worker.trading import bundle, history, learning
from ktrdr_worker.trading import lookahead as ahead
from ktrdr_worker.trading.bars import stamp
from ktrdr_worker.trading.fingerprint import fingerprint
from ktrdr_zmq import results

MOST: Final = 100_000


class CheckRequest(Request, kw_only=True):
    """The body of a check: that of a backtest, with how many bars to look at and the seed that chooses them."""

    samples: int = 50
    seed: int = 0


class Case:
    """What both checks begin with: a model, and the bars of one symbol."""

    def __init__(self, body: dict[str, Any], context: JobContext) -> None:
        self.begun = time.monotonic()
        learning.prepare(context.threads)
        self.request = CheckRequest.read(body)
        if not 1 <= self.request.samples <= MOST or not 0 <= self.request.seed < 1 << 31:
            raise JobError(f"samples must be between 1 and {MOST:,}, and seed between 0 and {(1 << 31) - 1:,}.")
        self.model = bundle.load(input_of(context, "model").read_bytes())
        strategy = self.model.strategy
        if self.request.timeframe != strategy.base:
            raise JobError(f"The model decides on bars of {strategy.base}, not of {self.request.timeframe}.")
        context.progress(0.02, stage="bars")
        self.market: Market = markets(context, self.request, [self.request.symbol], strategy.timeframes, strategy.base)[0]
        self._context = context

    def result(self) -> dict[str, Any]:
        """The fields that both results have."""
        context, strategy = self._context, self.model.strategy
        return {
            "strategy_name": strategy.name, "symbol": self.request.symbol, "timeframe": strategy.base,
            "timeframes": list(strategy.timeframes),
            "data": data_used(self.market, 0, len(self.market.frames.bars.opens)), "model_digest": context.input_digests["model"],
            "seed": self.request.seed, "device": context.device, "threads": context.threads, "duration_s": time.monotonic() - self.begun,
            "fingerprint": fingerprint(context.device), "digest": "",
        }  # fmt: skip


class CheckLookahead:
    """Looks whether anything that a model does at a bar depends on later bars."""

    kind = "check-lookahead"
    versions = (1, 1)

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Check the model as ``body`` says, which `ktrdr_zmq.followups.check` makes; see `LookaheadResult`."""
        case = Case(body, context)
        model, market, request = case.model, case.market, case.request
        rules = rules_of(request, model.strategy.decisions, model.strategy.risk)
        whole = ahead.course(model, market.frames, rules, context.device, steps(context, 0.05, 0.1, "all bars"))
        first = whole.first
        turning = ahead.turning(whole.decisions)
        places = ahead.sample(first, len(whole.decisions) - 1, request.samples, request.seed, turning).tolist()
        found: list[ahead.Difference] = []
        for index, last in enumerate(places):
            step = [0.1 + 0.9 * number / len(places) for number in (index, index + 1)]
            tick = steps(context, step[0], step[1], "cutting", f"cut {index + 1:,} of {len(places):,}")
            tick(0.0)
            found += ahead.differences(model, market.bars, whole, last, rules, context.device, tick)
        context.progress(1.0, stage="done")
        opens = whole.frames.bars.opens
        return results.LookaheadResult(
            **case.result(), clean=not found, cuts=len(places), bars=len(opens) - 1 - first, changes=_changes(found, opens),
            warnings=market.warnings,
            conventions={
                "cut": "the file's bars that close after a bar are taken away, and everything is computed anew",
                "compared": "bars of all timeframes, features, outputs of the network, decisions and fills, at every bar up to the cut",
                "cuts": "half of them at bars where the decision changes, as far as there are such, the others anywhere",
                "tolerance": ahead.EXACT,
                "tolerance_of_outputs": ahead.CLOSE,
                "outputs": "probabilities; of predicted returns, over their standard deviation",
                "first_bar": "the first one that is decided on",
            },
        ).sealed().to_dict()  # fmt: skip


def _changes(found: Iterable[ahead.Difference], opens: Any) -> list[results.Change]:
    """An entry for each value that changes, with its first bar over all cuts; the first bar and the earliest step come first."""
    by_name: dict[tuple[str, str], list[ahead.Difference]] = {}
    for difference in found:
        by_name.setdefault((difference.step, difference.name), []).append(difference)
    earliest = [(min(each, key=lambda difference: difference.bar), len(each)) for each in by_name.values()]
    earliest.sort(key=lambda pair: (pair[0].bar, ahead.STEPS.index(pair[0].step)))
    return [
        results.Change(
            step=one.step, name=one.name, first=stamp(opens[one.bar]), cut_after=stamp(opens[one.last]), whole=_number(one.whole),
            part=_number(one.part), size=_number(abs(one.whole - one.part)), cuts=cuts,
        )
        for one, cuts in earliest
    ]  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


class CheckWarmup:
    """Measures how much history a model's decisions need."""

    kind = "check-warmup"
    versions = (1, 1)

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Check the model as ``body`` says, which `ktrdr_zmq.followups.check` makes; see `WarmupResult`."""
        case = Case(body, context)
        model, market, request = history.plain(case.model), case.market, case.request
        steps(context, 0.05, 0.1, "all bars")(0.0)
        full = history.reference(model, market.frames, context.device)
        lengths = history.lengths(full.warmup, len(full.decisions))
        chosen = ahead.sample(lengths[-1], len(full.decisions), request.samples, request.seed)

        def effect(bars: int, begin: float, end: float) -> history.Effect:
            tick = steps(context, 0.1 + 0.9 * begin, 0.1 + 0.9 * end, "deciding", f"{bars:,} bars of history")
            return history.effect(model, market.bars, market.frames, full, chosen, bars, context.device, tick)

        effects = history.measure(effect, lengths)
        context.progress(1.0, stage="done")
        recommended, asked = history.recommended(effects), case.model.strategy.data.history_required
        return results.WarmupResult(
            **case.result(), warmup_bars=full.warmup, history_required=asked, recommended=recommended,
            enough=None if recommended is None else max(asked, full.warmup) >= recommended,
            lengths=[
                results.History(
                    multiple=each.bars / max(full.warmup, 1), bars=each.bars, samples=each.samples, changed=each.changed,
                    share=each.changed / each.samples if each.samples else None, feature=each.feature, largest_feature=each.largest_feature,
                    largest_output=each.largest_output,
                )
                for each in effects
            ],
            warnings=market.warnings + _warnings(effects, recommended),
            conventions={
                "compared_with": "all bars of the file before each bar",
                "decisions": "without min_signal_separation, which looks at earlier decisions",
                "enough": f"with it and any longer one no decision changes, and no output of the network by more than {history.ENOUGH:g}",
                "outputs": "probabilities; of predicted returns, over their standard deviation",
                "features": "as the network reads them, scaled",
            },
        ).sealed().to_dict()  # fmt: skip


def _warnings(effects: list[history.Effect], recommended: int | None) -> list[str]:
    found = []
    if recommended is None:
        found.append(f"Even {effects[-1].bars:,} bars of history do not settle the decisions: give longer data, or look at the indicators.")
    untried = [f"{each.bars:,}" for each in effects if not each.samples]
    if untried:
        found.append(f"With {', '.join(untried)} bars of history the indicators of a longer timeframe have no value.")
    return found


lookahead = CheckLookahead()
warmup = CheckWarmup()
