"""The kind ``training``: bars and a strategy in, a scored model out. Glue between the framework and ``ktrdr_worker.trading``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from ktrdr_worker.handler import JobContext
from ktrdr_worker.jobs.inputs import Request, data_used, input_of, window
from ktrdr_worker.trading import bundle, learning
from ktrdr_worker.trading.bars import load
from ktrdr_worker.trading.bundle import config_digest
from ktrdr_worker.trading.fingerprint import fingerprint
from ktrdr_worker.trading.training import Outcome, train
from ktrdr_zmq import results
from ktrdr_zmq.strategy import Strategy, parse_strategy
from ktrdr_zmq.strategy.schema import CLASSES

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

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Train the strategy of ``body``, which `ktrdr_zmq.recipes.training` makes; see `TrainingResult` for what comes back."""
        begun = time.monotonic()
        learning.prepare(context.threads)
        request = Request.read(body)
        strategy = parse_strategy(request.strategy, f"{request.strategy_name or 'strategy'}.yaml", request.overrides)
        loaded = load(input_of(context, "data"), request.data["filename"], request.symbol, request.data["timeframe"], request.timeframe)
        first, last = window(loaded.bars, request)

        def progress(share: float, stage: str, text: str, figures: dict[str, float]) -> None:
            context.check_cancelled()
            context.progress(share, stage=stage, text=text, metrics=figures)

        made_by = fingerprint(context.device)
        digest = config_digest(strategy)
        job = ":".join((digest, context.input_digests["data"], request.symbol, request.timeframe, str(first), str(last)))
        outcome = train(strategy, loaded.bars, first, last, context.device, progress, Keeper(context, job, made_by))
        used = data_used(loaded, request, context.input_digests["data"], max(outcome.features.warmup, first), last)
        description = bundle.Description(
            schema=bundle.SCHEMA, kind="model", strategy=request.strategy, strategy_name=strategy.name,
            overrides=list(request.overrides.items()),
            config_digest=digest, classes=list(CLASSES), feature_ids=outcome.features.ids,
            scaling=[(scaling.offset, scaling.divisor) for scaling in outcome.scalings], seed=strategy.training.seed, fingerprint=made_by,
            seen=bundle.Seen(
                symbol=request.symbol, timeframe=request.timeframe, data_digest=used.digest, since=outcome.parts[0].first,
                until=outcome.parts[1].label_end,
            ),
        )  # fmt: skip
        model = context.add_artifact("model", bundle.dump(outcome.learned.network, description), "application/x-ktrdr-model")
        context.progress(1.0, stage="done")
        return self._result(strategy, request, outcome, used, {
            "model_digest": model, "config_digest": digest, "fingerprint": made_by, "device": context.device, "threads": context.threads,
            "duration_s": time.monotonic() - begun, "warnings": loaded.warnings + _warnings(outcome),
        })  # fmt: skip

    def _result(
        self, strategy: Strategy, request: Request, outcome: Outcome, used: results.DataUsed, rest: dict[str, Any]
    ) -> dict[str, Any]:
        learned = outcome.learned
        train_score, validation_score, test_score = outcome.scores
        return results.TrainingResult(
            strategy_name=strategy.name, symbol=request.symbol, timeframe=request.timeframe, overrides=request.overrides, data=used,
            classes=list(CLASSES), feature_ids=outcome.features.ids, train_part=outcome.parts[0], validation_part=outcome.parts[1],
            test_part=outcome.parts[2], epochs_run=len(learned.history.epoch), best_epoch=learned.best_epoch,
            stopped_early=learned.stopped_early, history=learned.history, train=train_score, validation=validation_score, test=test_score,
            baseline=outcome.baseline, majority_class=outcome.majority,
            gap=validation_score.balanced_accuracy - test_score.balanced_accuracy,
            parameters=sum(parameter.numel() for parameter in learned.network.parameters()), seed=strategy.training.seed,
            conventions=_conventions(strategy), digest="", **rest,
        ).sealed().to_dict()  # fmt: skip


def _conventions(strategy: Strategy) -> dict[str, Any]:
    labels, shares = strategy.training.labels, strategy.training.data_split
    return {
        "label": f"return from the close of a bar to the close {labels.horizon} bars later",
        "label_threshold": labels.threshold,
        "label_threshold_unit": labels.scale,
        "split": "chronological; samples whose label looks into the next part or its embargo are purged",
        "split_shares": [shares.train, shares.validation, shares.test],
        "embargo_bars": shares.embargo,
        "scaling": "fitted on the training part",
        "early_stopping": "on the loss of the validation part; the weights are those of the best epoch",
        "baseline": "always the most frequent class of the training part",
        "equality": "bit for bit only with an equal fingerprint and number of threads",
    }


def _warnings(outcome: Outcome) -> list[str]:
    test, base = outcome.scores[2], outcome.baseline
    found = []
    if len(outcome.made_by) > 1:
        found.append("It was interrupted and went on on another kind of machine or release: equality bit for bit is not claimed.")
    if test.balanced_accuracy <= base.balanced_accuracy:
        found.append("On the test part the model is no better than always saying the most frequent class (balanced accuracy).")
    if test.samples < 100:
        found.append(f"The test part has only {test.samples} samples: its figures say little.")
    return found


handler = Training()
