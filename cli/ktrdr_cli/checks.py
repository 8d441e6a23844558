"""``ktrdr backtest check-lookahead`` and ``check-warmup``: checks of a trained model, on a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from ktrdr_cli.common import Command, face, finish, talk
from ktrdr_cli.finding import find
from ktrdr_cli.reports import report
from ktrdr_cli.submitting import (
    DATA_DIR,
    OPTIONS,
    Submission,
    data_folder,
    see_through,
    show_detached,
    show_request,
    submit,
    with_options,
)
from ktrdr_cli.watching import detachable, outcome
from ktrdr_zmq.errors import EXIT_FAILED, UsageError

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient

F = TypeVar("F", bound=Callable[..., Any])

WHAT: Final[tuple[Callable[[F], F], ...]] = (
    click.option(
        "--model", "-m", default="last", show_default=True, metavar="MODEL",
        help="The model: a job's id, last, NAME (the newest) or NAME@N.",
    ),
    click.option("--symbol", metavar="SYMBOL", help="On whose bars to check it; the first symbol of the model by default."),
    click.option("--timeframe", metavar="T", help="Only for a check: the timeframe that the model must decide on."),
)  # fmt: skip
SEED: Final = click.option(
    "--seed", type=click.IntRange(0, (1 << 31) - 1), metavar="N", default=0, show_default=True, help="Chooses the bars to look at."
)


def _samples(usual: int) -> Callable[[F], F]:
    return click.option(
        "--samples", type=click.IntRange(1, 100_000), metavar="N", default=usual, show_default=True, help="How many bars to look at."
    )


@click.command("check-lookahead", cls=Command)
@with_options(WHAT, (_samples(50), SEED, DATA_DIR), OPTIONS)
def check_lookahead(**options: Any) -> None:
    """Check that a model sees nothing that it cannot know yet.

    A worker computes everything over all bars, and again over the bars up to each of a sample: bars, features, outputs of the network,
    decisions and fills up to there must be the same. Exit code 1 if they are not, with the first bar and value that differ.
    """
    _check("check-lookahead", **options)


@click.command("check-warmup", cls=Command)
@with_options(WHAT, (_samples(200), SEED, DATA_DIR), OPTIONS)
def check_warmup(**options: Any) -> None:
    """Measure how much history a model's decisions need, and recommend a history_required.

    A worker decides at a sample of bars with more and more bars before each, and compares with all the history that there is.
    """
    _check("check-warmup", **options)


def _check(
    kind: str, model: str, symbol: str | None, timeframe: str | None, samples: int, seed: int, data_dir: str | None, **options: Any
) -> None:
    shown = face()
    if not model.strip():
        raise UsageError("--model names no model: give a job's id, last, NAME or NAME@N.", hint="See them with: ktrdr models list")
    how = Submission(**options)
    folder = data_folder(data_dir)
    ids: list[str] = []

    async def work(client: AsyncClient) -> int:
        from ktrdr_zmq.followups import check

        info = await find(client, model, shown)
        request = await check(
            client, kind, await client.job(info.id), symbol, timeframe, samples=samples, seed=seed, data_dir=folder, name=how.name,
            **how.request_options(shown),
        )  # fmt: skip
        if how.dry_run:
            show_request(shown, request)
            return 0
        job = await submit(client, request, shown, ids)
        if how.detach:
            show_detached(shown, await job.status())
            return 0
        result, ended = await see_through(job, shown, f"{kind} {request.name}")
        shown.out.show({**outcome(ended), "result": dict(result)}, *report(result, ended), essence=[job.id])
        return 0 if result.get("clean", True) else EXIT_FAILED

    with detachable(lambda: ids):
        finish(talk(work))
