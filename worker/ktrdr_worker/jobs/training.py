"""The kind ``training``: bars and a strategy in, a scored model out. Glue between the framework and ``ktrdr_worker.trading``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ktrdr_worker.handler import JobContext, JobError
from ktrdr_worker.jobs.inputs import Request, data_used, markets, window
from ktrdr_worker.trading import bundle, learning
from ktrdr_worker.trading.bars import stamp
from ktrdr_worker.trading.bundle import config_digest
from ktrdr_worker.trading.fingerprint import fingerprint
from ktrdr_worker.trading.labels import rolling_deviation
from ktrdr_worker.trading.samples import Span
from ktrdr_worker.trading.scores import Score
from ktrdr_worker.trading.training import Outcome, train
from ktrdr_zmq import results
from ktrdr_zmq.strategy import Strategy, parse_strategy

CHECKPOINT: Final = "training"
CHECKPOINT_S: Final = 20.0
"""Seconds between two checkpoints: what a killed worker loses at most, beside the epoch it was in."""


class Keeper:
    """Writes checkpoints now and then, and always before the job lets itself be stopped."""

    def __init__(self, context: JobContext, job: str, made_by: dict[str, str]) -> None:
        self.job = job
        self.made_by = " ".join((*made_by.values(), f"{context.threads} threads"))
        self._context = context
        self._kept_at = time.monotonic()

    def load(self) -> bytes | None:
        """The newest checkpoint of an earlier attempt."""
        files = self._context.load_checkpoint()
        return files.get(CHECKPOINT) if files is not None else None

    def offer(self, dump: Callable[[], bytes]) -> None:
        """Write the state down if it is time to."""
        if self._context.cancelled or time.monotonic() >= self._kept_at + CHECKPOINT_S:
            self._context.save_checkpoint({CHECKPOINT: dump()})
            self._kept_at = time.monotonic()


class Training:
    """Trains a model."""

    kind = "training"
    versions = (1, 1)

    def warm_up(self) -> None:
        """Compile what most labels take. What few strategies have is compiled when it is first asked for, and kept as well."""
        rolling_deviation(np.zeros(3), 2)

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Train the strategy of ``body``, which `ktrdr_zmq.recipes.training` makes; see `TrainingResult` for what comes back."""
        begun = time.monotonic()
        learning.prepare(context.threads)
        request = Request.read(body)
        strategy = parse_strategy(request.strategy, f"{request.strategy_name or 'strategy'}.yaml", request.overrides)
        if not strategy.symbols or not strategy.timeframes:
            raise JobError("The job's body is not what `ktrdr` sends: neither strategy nor overrides name a symbol and a timeframe.")
        found = markets(context, request, strategy.symbols, strategy.timeframes, strategy.base)
        spans = [Span(market.frames, *window(market, request)) for market in found]

        def progress(share: float, stage: str, text: str, figures: dict[str, float]) -> None:
            context.check_cancelled()
            context.progress(share, stage=stage, text=text, metrics=figures)

        made_by = fingerprint(context.device)
        digest = config_digest(strategy)
        job = ":".join((digest, *(f"{market.digest} {span.first} {span.last}" for market, span in zip(found, spans, strict=True))))
        outcome = train(strategy, spans, context.device, progress, Keeper(context, job, made_by))
        used = [
            data_used(market, max(warmup, span.first), span.last)
            for market, warmup, span in zip(found, outcome.warmups, spans, strict=True)
        ]
        description = bundle.Description(
            schema=bundle.SCHEMA, kind="model", strategy=request.strategy, strategy_name=strategy.name,
            overrides=list(request.overrides.items()),
            config_digest=digest, classes=list(strategy.classes), feature_ids=strategy.feature_ids,
            scaling=[(scaling.offset, scaling.divisor) for scaling in outcome.scalings], seed=strategy.training.seed, fingerprint=made_by,
            seen=bundle.Seen(
                data={market.symbol: market.digest for market in found}, since=stamp(outcome.seen[0]), until=stamp(outcome.seen[1])
            ),
        )  # fmt: skip
        model = context.add_artifact("model", bundle.dump(outcome.learned.network, description), "application/x-ktrdr-model")
        context.progress(1.0, stage="done")
        return self._result(strategy, request.overrides, outcome, used, {
            "model_digest": model, "config_digest": digest, "fingerprint": made_by, "device": context.device, "threads": context.threads,
            "duration_s": time.monotonic() - begun, "warnings": [text for market in found for text in market.warnings] + _warnings(outcome),
        })  # fmt: skip

    def _result(
        self, strategy: Strategy, overrides: dict[str, Any], outcome: Outcome, used: list[results.DataUsed], rest: dict[str, Any]
    ) -> dict[str, Any]:
        learned = outcome.learned
        train_score, validation_score, test_score = outcome.scores
        return results.TrainingResult(
            strategy_name=strategy.name, symbols=list(strategy.symbols), timeframe=strategy.base, timeframes=list(strategy.timeframes),
            overrides=overrides, data=used,
            output_format=strategy.decisions.output_format, model_type=strategy.model.type, sequence_length=strategy.model.window,
            classes=list(strategy.classes), feature_ids=strategy.feature_ids, train_part=outcome.parts[0],
            validation_part=outcome.parts[1],
            test_part=outcome.parts[2], epochs_run=len(learned.history.epoch), best_epoch=learned.best_epoch,
            stopped_early=learned.stopped_early, history=learned.history, train=train_score, validation=validation_score, test=test_score,
            baseline=outcome.baseline, majority_class=outcome.majority,
            gap=_gap(validation_score, test_score),
            parameters=sum(parameter.numel() for parameter in learned.network.parameters()), seed=strategy.training.seed,
            conventions=_conventions(strategy), digest="", **rest,
        ).sealed().to_dict()  # fmt: skip


LABELS: Final = {
    "forward_return": "return from the close of a bar to the close a number of bars later",
    "triple_barrier": "which of a long and a short trade reaches its target before its stop; the stop first where one bar touches both",
    "zigzag": "return from the close of a bar to the turning point that ends its leg, known when that is confirmed",
}


def _gap(validation: Score, test: Score) -> float | None:
    """How much better it is on the validation part than on the test part."""
    if isinstance(validation, results.ClassificationMetrics) and isinstance(test, results.ClassificationMetrics):
        return validation.balanced_accuracy - test.balanced_accuracy
    before, after = validation["r2"], test["r2"]
    return None if before is None or after is None else before - after


def _conventions(strategy: Strategy) -> dict[str, Any]:
    shares = strategy.training.data_split
    return {
        "label": LABELS[strategy.training.labels.source],
        "label_parameters": strategy.plain["training"]["labels"],
        "timeframes": "a bar is known at its own close; at the close of a bar of the base timeframe the newest known one of each is read",
        "split": "chronological, at moments common to all symbols; samples whose label looks into the next part or its embargo are purged, "
        "those whose window begins before their part are skipped",
        "split_shares": [shares.train, shares.validation, shares.test],
        "embargo_bars": shares.embargo,
        "scaling": "fitted on the training part",
        "early_stopping": "on the loss of the validation part; the weights are those of the best epoch",
        "baseline": f"always the {'mean return' if strategy.regression else 'most frequent class'} of the training part",
        "equality": "bit for bit only with an equal fingerprint and number of threads",
    }


def _warnings(outcome: Outcome) -> list[str]:
    test, base = outcome.scores[2], outcome.baseline
    found = []
    what, rule = (
        ("r2", "the mean return") if isinstance(test, results.RegressionMetrics) else ("balanced_accuracy", "the most frequent class")
    )
    ours, its = test[what], base[what]
    if len(outcome.made_by) > 1:
        found.append("It was interrupted and went on on another kind of machine or release: equality bit for bit is not claimed.")
    if ours is not None and its is not None and ours <= its:
        found.append(f"On the test part the model is no better than always saying {rule} ({what.replace('_', ' ')}).")
    for name, part in zip(("training", "validation", "test"), outcome.parts, strict=True):
        absent = [symbol for symbol, count in part.by_symbol.items() if not count]
        if absent:
            found.append(f"The {name} part has no sample of {', '.join(absent)}.")
    if test.samples < 100:
        found.append(f"The test part has only {test.samples} samples: its figures say little.")
    return found


handler = Training()
