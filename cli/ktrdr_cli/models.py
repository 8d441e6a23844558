"""``ktrdr models``: train models, and look at the ones there are. A model is a training that is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from ktrdr_cli.blocks import DASH, Column, Table
from ktrdr_cli.common import face, group, talk
from ktrdr_cli.reports import report
from ktrdr_cli.submitting import (
    DATA_OPTIONS,
    OPTIONS,
    Submission,
    cluster_data,
    data_folder,
    overrides,
    see_through,
    show_detached,
    show_request,
    submit,
    with_options,
)
from ktrdr_cli.texts import ago
from ktrdr_cli.watching import detachable, outcome
from ktrdr_zmq.errors import Refused, UnknownJob, UsageError
from ktrdr_zmq.figures import figure, label

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.datasets import Dataset
    from ktrdr_zmq.handles import JobRequest
    from ktrdr_zmq.views import JobInfo

ALL: Final = 10_000


@group("models")
def models() -> None:
    """Train models; list, show, compare and remove them.

    A MODEL is named by the id of its training, by 'last', by NAME (the newest of that name) or by NAME@N (the N-th, counted from the
    oldest).
    """


@models.command("train")
@click.option("--strategy", required=True, metavar="NAME|FILE", help="The strategy: a name, or the path of its YAML file.")
@click.option(
    "--symbol",
    metavar="SYMBOL",
    multiple=True,
    help="What to train on instead of the strategy's own, for example EURUSD; several, repeated or with commas, make one model.",
)
@click.option("--timeframe", metavar="T", help="Whose bars to decide on, for example 1h or 1d; of several timeframes it must be one.")
@with_options(DATA_OPTIONS, OPTIONS)
def train(
    strategy: str, symbol: tuple[str, ...], timeframe: str | None, start: str | None, end: str | None, set_: tuple[str, ...],
    data_dir: str | None, **options: Any,
) -> None:  # fmt: skip
    """Train a model on a worker, a GPU first, and show how good it is on bars that it never saw.

    Ctrl+C leaves the training alone and says how to come back to it.
    """
    from ktrdr_zmq.datasets import NoBars, known_to
    from ktrdr_zmq.recipes import training

    shown = face()
    how = Submission(**options)

    def make(known: Sequence[Dataset]) -> JobRequest:
        return training(
            strategy, symbol, timeframe, start=start, end=end, overrides=overrides(set_), data_dir=data_folder(data_dir), known=known,
            name=how.name, **how.request_options(shown),
        )  # fmt: skip

    with contextlib.suppress(NoBars):  # the cluster may have them; any other mistake is told before it is asked
        make(())
    if how.dry_run:
        show_request(shown, make(cluster_data(shown)))
        return
    ids: list[str] = []

    async def work(client: AsyncClient) -> None:
        request = make(await known_to(client))
        job = await submit(client, request, shown, ids)
        if how.detach:
            show_detached(shown, await job.status())
            return
        result, info = await see_through(job, shown, f"training {request.name}")
        back = f"Backtest it with: ktrdr backtest run -m {job.id[:8]}"
        shown.out.show({**outcome(info), "result": dict(result)}, *report(result, info), back, essence=[job.id])

    with detachable(lambda: ids):
        talk(work)


# ---------------------------------------------------------------------------------------------------------------- looking


async def find(client: AsyncClient, ref: str) -> JobInfo:
    """The training behind a model's name; one that still runs is an error."""
    from ktrdr_zmq.recipes import find_model

    try:
        info = await client.job_info("last:training" if ref == "last" else ref)
    except UnknownJob:
        return await find_model(client, ref)
    if info.kind == "training" and not info.terminal:
        raise UsageError(f"Training {info.id[:8]} still runs.", hint=f"Watch it with: ktrdr jobs watch {info.id[:8]}")
    return await find_model(client, info.id)


async def trained(client: AsyncClient, info: JobInfo) -> dict[str, Any] | None:
    """A training's result; None if the broker keeps it no more."""
    from ktrdr_zmq import payload

    try:
        return dict(payload.unpack(await client.fetch_result(info.id)))
    except Refused:
        return None


def traded(result: Mapping[str, Any]) -> str:
    """What a model was trained on, in a few words."""
    return f"{','.join(result['symbols'])} {result['timeframe']}"


def versions(infos: list[JobInfo]) -> dict[str, int]:
    """The N of NAME@N by job id, from trainings with the newest first."""
    count: dict[str, int] = {}
    found = {}
    for info in reversed(infos):
        count[info.name] = count.get(info.name, 0) + 1
        found[info.id] = count[info.name]
    return found


@models.command("list")
@click.option("--name", default="", metavar="NAME", help="Only models of this name.")
@click.option("--limit", type=click.IntRange(1, 1000), metavar="N", default=20, show_default=True, help="How many, the newest first.")
def list_(name: str, limit: int) -> None:
    """List the models that were trained, the newest first."""
    shown = face()

    async def work(client: AsyncClient) -> tuple[list[JobInfo], dict[str, int], list[dict[str, Any] | None]]:
        infos = await client.jobs(states=["done"], kinds=["training"], name=name, limit=ALL)
        newest = infos[:limit]
        return newest, versions(infos), list(await asyncio.gather(*(trained(client, info) for info in newest)))

    infos, numbers, results = talk(work)
    columns = [
        Column("MODEL"), Column("JOB", whole=True), Column("DATA"), Column("FIGURE"), Column("TEST", right=True),
        Column("BASELINE", right=True),
        Column("WORKER"), Column("AGE", right=True),
    ]  # fmt: skip
    rows, documents = [], []
    for info, result in zip(infos, results, strict=True):
        model = f"{info.name}@{numbers[info.id]}"
        test, baseline = (result or {}).get("test", {}), (result or {}).get("baseline", {})
        data = traded(result) if result else DASH
        name, unit = ("r2", "ratio") if test.get("output_format") == "regression" else ("balanced_accuracy", "fraction")
        cells = [label(name) if test else DASH, *(figure(part.get(name), unit) for part in (test, baseline))]
        rows.append([model, info.id[:8], data, *cells, info.worker_id, ago(info.finished)])
        documents.append({
            "model": model, "job_id": info.id, "name": info.name, "version": numbers[info.id], "worker_id": info.worker_id,
            "finished": info.finished, "symbols": result["symbols"] if result else None,
            "timeframe": result["timeframe"] if result else None,
            "test": test or None, "baseline": baseline or None, "model_digest": result["model_digest"] if result else None,
        })  # fmt: skip
    empty = "There is no trained model. Train one with: ktrdr models train --strategy neuro_mean_reversion"
    shown.out.show({"schema": 1, "models": documents}, Table(columns, rows, empty=empty), essence=[row[0] for row in rows])


@models.command("show")
@click.argument("model", default="last")
def show(model: str) -> None:
    """Show everything that a training found; of the last one by default."""
    shown = face()

    async def work(client: AsyncClient) -> tuple[JobInfo, dict[str, Any]]:
        info = await find(client, model)
        return info, await _kept(client, info)

    info, result = talk(work)
    shown.out.show({**outcome(info), "result": result}, *report(result, info, full=True), essence=[info.id])


async def _kept(client: AsyncClient, info: JobInfo) -> dict[str, Any]:
    result = await trained(client, info)
    if result is None:
        raise UsageError(f"The figures of training {info.id[:8]} are not kept any more.", hint="Its model can still be backtested.")
    return result


@models.command("compare")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def compare(models: tuple[str, ...]) -> None:
    """Compare models on their test figures, each on its own test part. An asterisk marks the best."""
    from ktrdr_zmq.results import METRICS

    shown = face()

    async def work(client: AsyncClient) -> list[tuple[JobInfo, dict[str, Any]]]:
        found = []
        for ref in dict.fromkeys(models):
            info = await find(client, ref)
            found.append((info, await _kept(client, info)))
        return found

    found = talk(work)
    tests = [result["test"] for _, result in found]
    formats = {test["output_format"] for test in tests}
    if len(formats) > 1:
        raise UsageError("A model of classes and one of returns have no figure in common: compare models of one output_format.")
    rows = [
        ["job", *(info.id[:8] for info, _ in found)],
        ["data", *(traded(result) for _, result in found)],
        ["test part", *(f"{result['test_part']['first'][:10]} on" for _, result in found)],
    ]
    for name, metric in METRICS[formats.pop()].items():
        known = [test[name] * metric.better for test in tests if test[name] is not None and metric.better]
        best = max(known) if len(known) > 1 else None
        marks = ["*" if best is not None and test[name] is not None and test[name] * metric.better == best else " " for test in tests]
        rows.append([label(name), *(figure(test[name], metric.unit) + mark for test, mark in zip(tests, marks, strict=True))])
    parts = {(traded(result), result["test_part"]["first"]) for _, result in found}
    note = "Note: their test parts differ, so the figures cannot be compared directly." if len(parts) > 1 else ""
    note = "\n".join(line for line in (note, _agreement([result for _, result in found])) if line)
    columns = [Column("METRIC", whole=True), *(Column(info.name or info.id[:8], right=True) for info, _ in found)]
    documents = [{"job_id": info.id, "name": info.name, "test_part": r["test_part"], "test": r["test"]} for info, r in found]
    document = {"schema": 1, "comparable": len(parts) == 1, "models": documents}
    shown.out.show(document, Table(columns, rows), note, essence=[info.id for info, _ in found])


def _agreement(results: list[dict[str, Any]]) -> str:
    """Of trainings of the same strategy on the same bars: whether they came to the same, and whether that is claimed at all."""
    from ktrdr_zmq.results import TrainingResult, differing_circumstances

    first, *others = (TrainingResult.from_dict(result) for result in results)
    if not others or any((other.config_digest, other.data) != (first.config_digest, first.data) for other in others):
        return ""
    differing = sorted({name for other in others for name in differing_circumstances(first, other)})
    if differing:
        return f"Note: the same training, done with another {', '.join(differing)}: that its weights are equal is not claimed."
    equal = all(other.digest == first.digest for other in others)
    return f"Note: the same training, done alike: its results are {'equal' if equal else 'NOT equal, which should not be'}."


@models.command("rm")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def rm(models: tuple[str, ...]) -> None:
    """Remove models: their trainings, figures and files. Nothing else removes a model."""
    shown = face()

    async def work(client: AsyncClient) -> tuple[list[str], int]:
        ids = list(dict.fromkeys([(await find(client, ref)).id for ref in models]))
        return ids, int((await client.admin("rm", refs=ids))["removed"])

    ids, removed = talk(work)
    text = f"Removed {removed} of {len(ids)}: {', '.join(job_id[:8] for job_id in ids)}"
    shown.out.show({"schema": 1, "removed": removed, "job_ids": ids}, text, essence=ids)
