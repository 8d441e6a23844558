"""``ktrdr jobs``: everything about jobs that were submitted, by whomever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ktrdr_cli.blocks import Block, Column, Fields, Table
from ktrdr_cli.common import Face, face, finish, group, talk
from ktrdr_cli.output import Notes
from ktrdr_cli.reports import report
from ktrdr_cli.submitting import key_values
from ktrdr_cli.texts import (
    attempt_story,
    end_line,
    failure_text,
    job_table,
    job_word,
    moment_text,
    octets,
    pairs,
    past_moment,
    seconds,
    state_text,
)
from ktrdr_cli.watching import detachable, ended, follow_all, outcome
from ktrdr_zmq.errors import UsageError, WaitTimedOut

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.handles import AsyncJob
    from ktrdr_zmq.views import JobInfo

STATES: Final = ("queued", "leased", "running", "cancelling", "done", "failed", "cancelled", "timed_out")
LOG_PIECE: Final = 65_536
LOG_PAUSE_S: Final = 0.5


@group("jobs")
def jobs() -> None:
    """List, watch, cancel, retry and explain jobs.

    A JOB is named by its id, by the beginning of its id (4 digits or more), by 'last', or by 'last:KIND'.
    """


# ---------------------------------------------------------------------------------------------------------------- looking


@jobs.command("list")
@click.option("--state", type=click.Choice(STATES), multiple=True, help="Only jobs in this state; repeatable.")
@click.option("--kind", multiple=True, metavar="KIND", help="Only jobs of this kind, for example training; repeatable.")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="Only jobs with this label; repeatable.")
@click.option("--name", default="", metavar="NAME", help="Only jobs of this name.")
@click.option("--since", metavar="WHEN", help="Only jobs submitted since then: 12h, 7d, or a date.")
@click.option("--limit", type=click.IntRange(1, 100_000), metavar="N", default=20, show_default=True, help="How many, the newest first.")
def list_(state: tuple[str, ...], kind: tuple[str, ...], label: tuple[str, ...], name: str, since: str | None, limit: int) -> None:
    """List jobs, the newest first."""
    shown = face()
    labels = key_values(label, "--label")
    moment = past_moment(since, "--since").timestamp() if since else 0.0
    infos = talk(lambda client: client.jobs(states=state, kinds=kind, labels=labels, name=name, since=moment, limit=limit))
    more = f"These are the newest {limit}; there may be more: --limit N" if len(infos) == limit else ""
    shown.out.show(
        {"schema": 1, "jobs": [info.to_dict() for info in infos]}, job_table(infos), essence=[info.id for info in infos]
    )  # fmt: skip
    if more:
        shown.out.note(more)


@jobs.command("show")
@click.argument("job", default="last")
def show(job: str) -> None:
    """Show a job with the story of all its attempts; the last one by default."""
    shown = face()
    info = talk(lambda client: client.job_info(job))
    shown.out.show(info.to_dict(), *story(info), essence=[info.id])


def story(info: JobInfo) -> list[Block]:
    """Everything that is known of a job, for people."""
    state = state_text(info.state.value, info.reason)
    if info.running:
        state = f"{job_word(info.state.value)} {info.fraction:.0%} {info.stage} {info.text}".rstrip()
    rows = [
        ("job", info.id),
        ("what", f"{info.kind} {info.name}".rstrip()),
        ("state", state),
        ("submitted", f"{moment_text(info.submitted)} by {info.submitter}"),
        ("started", moment_text(info.started)),
        ("finished", moment_text(info.finished)),
        ("run time", seconds(info.run_s or None)),
        ("device", f"{info.device} wanted" + (f", {info.tag} slot of {info.worker_id}" if info.worker_id else "")),
        ("labels", pairs(info.labels)),
        ("priority", str(info.priority)),
    ]
    if info.notice:
        rows.append(("notice", info.notice))
    if info.retry_of:
        rows.append(("retry of", info.retry_of))
    rows += [(f"input {name}", digest) for name, digest in info.inputs.items()]
    rows += [(f"file {item.name}", f"{octets(item.size)}, {item.digest}") for item in info.artifacts]
    blocks: list[Block] = [Fields(rows)]
    if info.attempts:
        count = len(info.attempts)
        lost = f"; crashes: {info.crashes}, lost workers: {info.losses}" if info.crashes or info.losses else ""
        title = f"{count} attempt{'s' if count > 1 else ''}{lost}"
        blocks.append(Fields([attempt_story(attempt) for attempt in info.attempts], title=title))
    if info.failure is not None and (not info.attempts or info.attempts[-1].failure != info.failure):
        blocks.append(Fields([("failure", failure_text(info.failure))]))
    return blocks


@jobs.command("explain")
@click.argument("job", default="last")
def explain(job: str) -> None:
    """Say why a job is where it is: what it waits for, and what each worker has against it."""
    shown = face()
    answer = talk(lambda client: client.explain(job))
    table = Table(
        [Column("WORKER", whole=True), Column("WHY NOT")],
        [[worker, why or "it could take the job now"] for worker, why in answer.workers],
    )  # fmt: skip
    document = {
        "schema": 1, "job_id": answer.job.id, "state": answer.job.state.value, "text": answer.text,
        "workers": [{"worker_id": worker, "reason": why} for worker, why in answer.workers],
    }  # fmt: skip
    shown.out.show(document, answer.text, *([table] if table.rows else []), essence=[answer.text])


@jobs.command("logs")
@click.argument("job", default="last")
@click.option("--follow", "-f", is_flag=True, help="Go on as the job prints, until it ends.")
def logs(job: str, follow: bool) -> None:
    """Print what a job's process wrote to stdout and stderr."""
    shown = face()
    ids: list[str] = []

    async def work(client: AsyncClient) -> None:
        info = await client.job_info(job)
        ids.append(info.id)
        offset, text, printed = 0, b"", False
        while True:
            chunk = await client.logs(info.id, offset, LOG_PIECE)
            offset = chunk.next_offset
            printed = printed or bool(chunk.data)
            if shown.json and not follow:
                text += chunk.data
            elif chunk.data:
                _print_log(shown, info.id, chunk.offset, chunk.data)
            if chunk.ended or (not follow and not chunk.data):
                break
            if not chunk.data:
                await asyncio.sleep(LOG_PAUSE_S)
        if not printed:
            shown.out.note(f"Job {info.id[:8]} has printed nothing{'' if info.terminal or follow else ' so far'}.")
        if shown.json and not follow:
            shown.out.show({"schema": 1, "job_id": info.id, "log": text.decode("utf-8", "replace")})

    with detachable(lambda: ids, back="ktrdr jobs logs -f"):
        talk(work)


def _print_log(shown: Face, job_id: str, offset: int, data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    if shown.json:
        shown.out.line({"schema": 1, "event": "log", "job_id": job_id, "offset": offset, "text": text})
    else:
        shown.out.raw(text)


@jobs.command("result")
@click.argument("job", default="last")
@click.option(
    "--save", type=click.Path(file_okay=False), metavar="DIR", help="Also fetch the files that the job produced into this folder."
)
@click.option("--trades", type=click.Path(dir_okay=False), metavar="FILE", help="Also fetch a backtest's trades into this file, as CSV.")
@click.option("--equity", type=click.Path(dir_okay=False), metavar="FILE", help="Also fetch a backtest's equity curve into it, as CSV.")
def result(job: str, save: str | None, trades: str | None, equity: str | None) -> None:
    """Show the result of a job that is done, with every figure."""
    shown = face()
    tables = {name: _table_file(name, path) for name, path in (("trades", trades), ("equity", equity)) if path is not None}

    async def work(client: AsyncClient) -> tuple[JobInfo, dict[str, Any], list[str]]:
        info = await client.job_info(job)
        if not info.terminal:
            raise UsageError(
                f"Job {info.id[:8]} has not ended: it is {job_word(info.state.value)}.",
                hint=f"Watch it with: ktrdr jobs watch {info.id[:8]}",
            )
        job_ = await client.job(info.id)
        plain = dict(await job_.result())
        saved = await _save(client, info, Path(save)) if save else []
        return info, plain, saved + [str(await job_.artifact(name, path)) for name, path in tables.items()]

    info, plain, saved = talk(work)
    files = ["\n".join(f"Saved {path}" for path in saved)] if saved else []
    document = {**outcome(info), "result": plain, **({"saved": saved} if save or tables else {})}
    shown.out.show(document, *report(plain, info, full=True), *files, essence=saved or [info.id])


def _table_file(name: str, path: str) -> Path:
    """Where to put a table.

    Raises
    ------
    UsageError
        When its ending promises something else than CSV, or its folder does not exist.
    """
    file = Path(path)
    if file.suffix.lower() not in ("", ".csv", ".txt"):
        raise UsageError(f"--{name} {path}: the table is CSV, not {file.suffix}.", hint=f"Use: --{name} {file.with_suffix('.csv')}")
    if not file.parent.is_dir():
        raise UsageError(f"--{name} {path}: there is no folder {file.parent}.")
    return file


async def _save(client: AsyncClient, info: JobInfo, folder: Path) -> list[str]:
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    saved = []
    for artifact in info.artifacts:
        name = Path(artifact.name).name  # a file's name is the worker's word: it must not lead out of the folder
        if name in ("", ".", ".."):
            continue
        endings = {"text/csv": ".csv", "application/json": ".json", "text/html": ".html", "text/plain": ".txt", "application/zip": ".zip"}
        ending = "" if "." in name else endings.get(artifact.media_type.partition(";")[0], "")
        saved.append(str(await client.get_artifact(artifact.digest, folder / f"{name}{ending}")))
    return saved


# ---------------------------------------------------------------------------------------------------------------- waiting


async def _all(client: AsyncClient, refs: tuple[str, ...]) -> list[AsyncJob]:
    return list({job.id: job for job in [await client.job(ref) for ref in refs]}.values())


@jobs.command("watch")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
def watch(jobs: tuple[str, ...]) -> None:
    """Watch jobs to their ends; the last one by default. With --json each event is a line.

    Ctrl+C leaves them alone. The exit code is that of the job that ended worst.
    """
    shown = face()
    ids: list[str] = []

    async def work(client: AsyncClient) -> list[JobInfo]:
        found = await _all(client, jobs or ("last",))
        ids.extend(job.id for job in found)
        with shown.out.progress(stream=True) as meter:
            return await follow_all(found, meter)

    with detachable(lambda: ids):
        infos = talk(work)
    if not shown.json:
        shown.out.show({}, *(end_line(info) for info in infos), essence=[f"{info.id} {info.state.value}" for info in infos])
    finish(ended(infos))


@jobs.command("wait")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="S", help="Give up after so many seconds, with exit code 6; the jobs go on."
)
def wait(jobs: tuple[str, ...], timeout: float | None) -> None:
    """Wait until jobs have ended, without showing progress. The exit code is that of the job that ended worst."""
    shown = face()
    ids: list[str] = []

    async def work(client: AsyncClient) -> list[JobInfo]:
        found = await _all(client, jobs)
        ids.extend(job.id for job in found)
        try:
            async with asyncio.timeout(timeout):
                return await follow_all(found, Notes(shown.out))
        except TimeoutError:
            raise WaitTimedOut(f"Not all have ended within {timeout:g} s; they go on.", hint="See them with: ktrdr jobs list") from None

    with detachable(lambda: ids, back="ktrdr jobs wait"):
        infos = talk(work)
    document = {"schema": 1, "jobs": [info.to_dict() for info in infos]}
    shown.out.show(document, *(end_line(info) for info in infos), essence=[f"{info.id} {info.state.value}" for info in infos])
    finish(ended(infos))


# ---------------------------------------------------------------------------------------------------------------- changing


@jobs.command("cancel")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option(
    "--grace", type=click.FloatRange(0, 3600), default=10.0, show_default=True, metavar="S", help="Seconds between SIGTERM and SIGKILL."
)
def cancel(jobs: tuple[str, ...], grace: float) -> None:
    """Cancel jobs. One that runs is stopped; it has ended when its processes are gone."""
    shown = face()
    infos = talk(lambda client: client.cancel(jobs, grace=grace))
    lines = [f"{info.id[:8]} {info.kind} {info.name}: {job_word(info.state.value)}" for info in infos]
    document = {"schema": 1, "jobs": [info.to_dict() for info in infos]}
    shown.out.show(document, *lines, essence=[info.id for info in infos])


@jobs.command("retry")
@click.argument("job", default="last")
def retry(job: str) -> None:
    """Submit an ended job once more, as a new job."""
    _again(job, resume=False)


@jobs.command("resume")
@click.argument("job", default="last")
def resume(job: str) -> None:
    """Go on with a cancelled, failed or timed out job from its last checkpoint, as a new job."""
    _again(job, resume=True)


def _again(job: str, *, resume: bool) -> None:
    shown = face()

    async def work(client: AsyncClient) -> JobInfo:
        return await (await client.retry(job, resume=resume)).status()

    info = talk(work)
    how = "goes on from the last checkpoint of" if resume else "is a new run of"
    text = f"Job {info.id} {how} {info.retry_of[:8]}.\nWatch it with: ktrdr jobs watch {info.id[:8]}"
    shown.out.show({**outcome(info), "retry_of": info.retry_of}, text, essence=[info.id])


@jobs.command("priority")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--to", "priority", type=click.IntRange(-1000, 1000), required=True, metavar="N", help="Higher runs first; -1000 to 1000.")
def priority(jobs: tuple[str, ...], priority: int) -> None:
    """Change the priority of jobs that wait."""
    shown = face()
    answer = talk(lambda client: client.admin("priority", refs=list(jobs), priority=priority))
    changed = int(answer["changed"])
    text = f"Changed {changed} of {len(jobs)}; only jobs that wait have a place in the queue."
    shown.out.show({"schema": 1, "changed": changed, "priority": priority}, text)


@jobs.command("prune")
@click.option("--older-than", default="30d", show_default=True, metavar="WHEN", help="Remove what ended before then: 12h, 7d, or a date.")
def prune(older_than: str) -> None:
    """Remove ended jobs, their logs and files. Trained models and imported bars stay: 'ktrdr models rm' and 'ktrdr data rm' remove them."""
    shown = face()
    before = past_moment(older_than, "--older-than")
    answer = talk(lambda client: client.admin("prune", before=int(before.timestamp() * 1e6)))
    removed = int(answer["removed"])
    shown.out.show({"schema": 1, "removed": removed, "before": before}, f"Removed {removed} jobs that ended before {moment_text(before)}.")
