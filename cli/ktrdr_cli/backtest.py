"""``ktrdr backtest``: backtest a trained model on a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ktrdr_cli.checks import check_lookahead, check_warmup
from ktrdr_cli.common import face, group, talk
from ktrdr_cli.finding import find
from ktrdr_cli.pages import report as report_command
from ktrdr_cli.reports import report
from ktrdr_cli.submitting import (
    DATA_OPTIONS,
    OPTIONS,
    Submission,
    data_folder,
    overrides,
    see_through,
    show_detached,
    show_request,
    submit,
    with_options,
)
from ktrdr_cli.watching import detachable, outcome
from ktrdr_zmq.errors import UsageError

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient


@group("backtest")
def backtest() -> None:
    """Backtest a trained model, make a report of it, check the model."""


for command in (report_command, check_lookahead, check_warmup):
    backtest.add_command(command)


@backtest.command("run")
@click.option(
    "--model", "-m", default="last", show_default=True, metavar="MODEL", help="The model: a job's id, last, NAME (the newest) or NAME@N."
)
@click.option(
    "--capital",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MONEY",
    default=100_000.0,
    show_default=True,
    help="Money at the start.",
)
@click.option("--commission-bps", type=click.FloatRange(min=0), metavar="BPS", help="Commission for each leg, in basis points.")
@click.option("--slippage-bps", type=click.FloatRange(min=0), metavar="BPS", help="Slippage for each leg, in basis points.")
@click.option("--commission", type=click.FloatRange(min=0), metavar="FRACTION", help="The same as a fraction: 0.001 is 10 basis points.")
@click.option("--slippage", type=click.FloatRange(min=0), metavar="FRACTION", help="The same as a fraction: 0.001 is 10 basis points.")
@click.option("--symbol", metavar="SYMBOL", help="What to trade; the first symbol of the model by default.")
@click.option("--timeframe", metavar="T", help="Only for a check: the timeframe that the model must decide on.")
@with_options(DATA_OPTIONS, OPTIONS)
@click.option("--strategy", metavar="NAME", help="Only for a check: the strategy that the model must have been trained with.")
def run(
    model: str, capital: float, commission_bps: float | None, slippage_bps: float | None, commission: float | None,
    slippage: float | None, symbol: str | None, timeframe: str | None, start: str | None, end: str | None, set_: tuple[str, ...],
    data_dir: str | None, strategy: str | None, **options: Any,
) -> None:  # fmt: skip
    """Backtest a model on a worker: by default the last one, on the bars that it never saw.

    The model knows its strategy, symbol and timeframe. Bars that it was trained on make the figures IN-SAMPLE, which is shown. Costs have
    defaults by the symbol's class.
    """
    shown = face()
    if not model.strip():
        raise UsageError("--model names no model: give a job's id, last, NAME or NAME@N.", hint="See them with: ktrdr models list")
    how = Submission(**options)
    costs: dict[str, Any] = {
        "commission_bps": bps("commission", commission_bps, commission),
        "slippage_bps": bps("slippage", slippage_bps, slippage),
    }
    values = overrides(set_)
    folder = data_folder(data_dir)
    ids: list[str] = []

    async def work(client: AsyncClient) -> None:
        from ktrdr_zmq import payload
        from ktrdr_zmq.datasets import known_to
        from ktrdr_zmq.recipes import backtesting

        info = await find(client, model, shown)
        trained = payload.unpack(await client.fetch_result(info.id))
        if strategy is not None and trained.get("strategy_name") != strategy:
            raise UsageError(f"Model {info.id[:8]} was trained with {trained.get('strategy_name')}, not with {strategy}.")
        request = backtesting(
            info, trained, symbol, timeframe, start=start, end=end, capital=capital, overrides=values, data_dir=folder,
            known=await known_to(client), name=how.name, **costs, **how.request_options(shown),
        )  # fmt: skip
        if how.dry_run:
            show_request(shown, request)
            return
        job = await submit(client, request, shown, ids)
        if how.detach:
            show_detached(shown, await job.status())
            return
        result, ended = await see_through(job, shown, f"backtesting {request.name}")
        more = (
            f"Every figure: ktrdr jobs result {job.id[:8]}    Trades and equity: add --trades FILE --equity FILE\n"
            f"A page to look at: ktrdr backtest report {job.id[:8]}"
        )
        shown.out.show({**outcome(ended), "result": dict(result)}, *report(result, ended), more, essence=[job.id])

    with detachable(lambda: ids):
        talk(work)


def bps(what: str, points: float | None, fraction: float | None) -> float | None:
    """A cost in basis points, from one of the two ways to say it.

    Raises
    ------
    UsageError
        When both are given, or the fraction is none.
    """
    if fraction is None:
        return points
    if points is not None:
        raise UsageError(f"Give --{what} or --{what}-bps, not both.")
    if fraction >= 0.5:
        raise UsageError(
            f"--{what} {fraction:g} would be {fraction:.0%} of every trade: it is a fraction, as in 0.001.",
            hint=f"For basis points use --{what}-bps.",
        )
    return round(fraction * 10_000, 9)
