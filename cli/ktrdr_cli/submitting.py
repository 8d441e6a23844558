"""What `models train` and `backtest run` share: their options, how values are read, the dry run, and the way of a job to its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ktrdr_cli.blocks import Fields
from ktrdr_cli.common import Face, talk
from ktrdr_cli.texts import as_text, octets, pairs
from ktrdr_cli.watching import outcome, result_of
from ktrdr_zmq.errors import BrokerUnreachable, ConfigError, Refused, UsageError

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.datasets import Dataset
    from ktrdr_zmq.handles import AsyncJob, JobRequest, JobResult
    from ktrdr_zmq.views import JobInfo

F = TypeVar("F", bound=Callable[..., Any])


class Submission(NamedTuple):
    """How a job is to be submitted: what training and backtest have in common."""

    name: str | None
    label: tuple[str, ...]
    priority: int
    queue: bool
    no_wait: bool
    detach: bool
    timeout: float
    device: str = "auto"
    gpu_wait: float = 0.0
    threads: int = 1
    dry_run: bool = False

    def request_options(self, face: Face) -> dict[str, Any]:
        """As `JobRequest` takes them."""

        def wait(refusal: Refused) -> None:
            pause = refusal.retry_after or 2.0
            face.out.note(f"The broker refuses for the moment: {refusal.message} Trying again in {pause:g} s; --no-wait would end here.")

        return {
            "labels": key_values(self.label, "--label"), "priority": self.priority, "device": self.device, "gpu_wait": self.gpu_wait,
            "queue": self.queue, "run_timeout": self.timeout, "threads": self.threads, "wait_refusals": False if self.no_wait else wait,
        }  # fmt: skip


NAMING: tuple[Callable[[F], F], ...] = (
    click.option("--name", metavar="NAME", help="Name of the job, and of the model it makes; the strategy's or model's by default."),
    click.option("--label", metavar="KEY=VALUE", multiple=True, help="A label to find the job by; repeatable."),
    click.option("--priority", type=click.IntRange(-1000, 1000), metavar="N", default=0, show_default=True, help="Higher runs first."),
)
WAITING: tuple[Callable[[F], F], ...] = (
    click.option("--queue", is_flag=True, help="Let the job wait if no worker can run it now, instead of being refused."),
    click.option("--no-wait", is_flag=True, help="Exit 3 when the broker refuses for the moment, instead of trying again."),
    click.option("--detach", "-d", is_flag=True, help="Return as soon as the broker has the job."),
    click.option(
        "--timeout", type=click.FloatRange(min=0), default=0.0, metavar="S",
        help="Seconds the job may run before it is stopped; 0: no limit."
    ),
)  # fmt: skip
OPTIONS: tuple[Callable[[F], F], ...] = (
    *NAMING,
    click.option(
        "--device", type=click.Choice(["auto", "gpu", "cpu"]), default="auto", show_default=True,
        help="What it may run on; auto prefers a GPU and falls back to a CPU.",
    ),
    click.option(
        "--gpu-wait", type=click.FloatRange(min=0), default=0.0, metavar="S",
        help="Seconds for which auto waits for a busy GPU before it takes a CPU.",
    ),
    *WAITING,
    click.option("--threads", type=click.IntRange(1, 1024), metavar="N", default=1, show_default=True,
        help="Threads for its numerical libraries."),
    click.option("--dry-run", is_flag=True, help="Check everything and show what would be submitted; submit nothing."),
)  # fmt: skip

DATA_DIR: Callable[[F], F] = click.option(
    "--data-dir", metavar="D", help="Folder with your own bars, named SYMBOL_TIMEFRAME.csv or .parquet; looked in first."
)
DATA_OPTIONS: tuple[Callable[[F], F], ...] = (
    click.option("--start", metavar="DATE", help="First day, for example 2017-06-30."),
    click.option("--end", metavar="DATE", help="Last day."),
    click.option("--set", "set_", metavar="KEY=VALUE", multiple=True, help="Set a value of the strategy, for example training.epochs=5."),
    DATA_DIR,
)


def with_options(*options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    """Add options to a command, in their order."""

    def decorate(function: F) -> F:
        for option in reversed([option for some in options for option in some]):
            function = option(function)
        return function

    return decorate


# ---------------------------------------------------------------------------------------------------------------- values


def key_values(given: Sequence[str], option: str) -> dict[str, str]:
    """Read ``key=value`` words.

    Raises
    ------
    UsageError
        When one is none.
    """
    found = {}
    for word in given:
        key, separator, value = word.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"{option} {word!r} must be written KEY=VALUE.")
        found[key.strip()] = value
    return found


def overrides(given: Sequence[str]) -> dict[str, Any]:
    """Read ``--set`` words: values are JSON or YAML 1.2 (``yes`` is a text, ``1e-3`` a number).

    Raises
    ------
    UsageError
        When a word has no key, or its value cannot be read.
    """
    return {key: _value(key, text) for key, text in key_values(given, "--set").items()}


def _value(key: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        pass
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(text)
        return json.loads(json.dumps(value, allow_nan=False))
    except YAMLError as error:
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise UsageError(f"--set {key}={text}: the value is no YAML: {problem}.") from None
    except TypeError:  # a date, for example
        return text
    except ValueError:
        raise UsageError(f"--set {key}={text}: the value must be finite.") from None


def _no_constant(name: str) -> float:
    raise ValueError(name)


def data_folder(given: str | None) -> str | None:
    """The folder of one's own bars, as given or as set."""
    from ktrdr_zmq.config import load_settings

    return load_settings({"client.data_dir": given})["client.data_dir"] or None


def cluster_data(face: Face) -> Sequence[Dataset]:
    """Bars known to the cluster, for a command that can do without: none if no broker answers, which is said."""
    from ktrdr_zmq.datasets import known_to

    try:
        return talk(known_to)
    except (BrokerUnreachable, ConfigError) as error:
        face.out.note(f"Without the bars that were imported into the cluster: {error.message}")
        return ()


# ---------------------------------------------------------------------------------------------------------------- the way of a job


def show_request(face: Face, request: JobRequest) -> None:
    """Show what would be submitted."""
    from ktrdr_zmq.artifacts import file_digest

    inputs: dict[str, dict[str, Any]] = {}
    for name, source in request.inputs.items():
        if isinstance(source, Path):
            inputs[name] = {"path": str(source), "digest": file_digest(source).hex(), "size": source.stat().st_size}
        else:
            inputs[name] = {"digest": source if isinstance(source, str) else ""}
    settings = {
        "name": request.name, "labels": request.labels, "priority": request.priority, "device": request.device,
        "gpu_wait": request.gpu_wait, "queue": request.queue, "run_timeout": request.run_timeout, "threads": request.threads,
    }  # fmt: skip
    document = {"schema": 1, "dry_run": True, "kind": request.kind, **settings, "body": request.body, "inputs": inputs}
    body = [(key, as_text(value)) for key, value in request.body.items() if key not in ("schema", "strategy", "data")]
    files = [
        (name, f"{item['path']} ({octets(item['size'])})\n{item['digest']}" if "path" in item else item["digest"])
        for name, item in inputs.items()
    ]
    rest = [("name", request.name), ("labels", pairs(request.labels)), ("device", request.device), ("priority", str(request.priority))]
    face.out.show(document, Fields([*body, *files, *rest], title=f"Would submit a job of kind {request.kind}; nothing was submitted."))


async def submit(client: AsyncClient, request: JobRequest, face: Face, ids: list[str]) -> AsyncJob:
    """Submit, and say so."""
    job = await client.submit_request(request)
    ids.append(job.id)
    face.out.note(f"Submitted job {job.id[:8]}: {request.kind} {request.name}")
    if job.notice:
        face.out.note(job.notice)
    return job


def show_detached(face: Face, info: JobInfo) -> None:
    """Say how to find a job that was left alone."""
    short = info.id[:8]
    face.out.show(
        {**outcome(info), "result": None},
        f"Job {info.id}\nWatch it with: ktrdr jobs watch {short}\nIts result, when it is done: ktrdr jobs result {short}",
        essence=[info.id],
    )


async def see_through(job: AsyncJob, face: Face, name: str) -> tuple[JobResult, JobInfo]:
    """Watch a job to its result."""
    return await result_of(job, face.out, name)
