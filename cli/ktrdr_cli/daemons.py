"""``ktrdr broker`` and ``ktrdr worker``: the daemons in the foreground, the broker's switch for dispatch, and its damaged folders.

The options are those of ``ktrdr-broker`` and ``ktrdr-worker`` (a test compares them) and are passed on as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ktrdr_cli.blocks import Fields
from ktrdr_cli.common import face, finish, group, talk
from ktrdr_zmq.errors import EXIT_FAILED

if TYPE_CHECKING:
    from pathlib import Path

    from ktrdr_broker.salvage import Findings

_LEVEL = click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much to log.")
_FORMAT = click.option("--log-format", type=click.Choice(["text", "json", "journald"]), help="Form of the log lines.")
_READY = click.option("--ready-fd", type=int, metavar="N", help="Write a JSON line to this descriptor when ready.")


@group("broker")
def broker() -> None:
    """Run a broker; pause and unpause dispatch; check and salvage its folder."""


@broker.command("run")
@click.option("--bind", metavar="IP", help="The one IP to serve on (default 127.0.0.1).")
@click.option("--base-port", metavar="P", help="First of four ports (default 5555); 0 takes free ones.")
@click.option("--data-dir", metavar="D", help="Folder of the database and artifacts.")
@click.option("--insecure", is_flag=True, help="Allow --bind beyond loopback: no encryption, and whoever reaches the ports is trusted.")
@click.option("--no-fsync", is_flag=True, help="Do not wait for the disk: survives kills, not power cuts.")
@click.option("--restored", is_flag=True, help="The database is an older copy, put there on purpose: give up what the newer one knew.")
@_LEVEL
@_FORMAT
@_READY
def run_broker(**options: Any) -> None:
    """Run a broker until SIGTERM or Ctrl+C.

    Beyond this machine: ktrdr broker run --bind 192.168.1.100 --insecure
    """
    from ktrdr_broker.__main__ import main

    finish(main(words(options)))


@broker.command("check")
@click.option("--data-dir", metavar="D", help="Folder of the database and artifacts.")
def check(data_dir: str | None) -> None:
    """Read everything in the folder of a broker that does not run, and say what is damaged. Exit code 1 if something is."""
    from ktrdr_broker.salvage import check as look

    folder = _data_dir(data_dir)
    _show_findings(look(folder), f"Checked {folder}.")


@broker.command("salvage")
@click.option("--data-dir", metavar="D", help="Folder of the database and artifacts.")
@click.option("--to", required=True, metavar="NEW", help="Folder to make, with all that is intact.")
def salvage(data_dir: str | None, to: str) -> None:
    """Take what is intact of a damaged folder over into a new one. The damaged one is not changed, and no broker may run on it.

    Exit code 1 if something could not be taken over; each such thing is named.
    """
    from pathlib import Path

    from ktrdr_broker.salvage import salvage as rescue

    target = Path(to).expanduser().absolute()
    _show_findings(rescue(_data_dir(data_dir), target), f"Start a broker on it with: ktrdr broker run --data-dir {target}")


def _data_dir(given: str | None) -> Path:
    from ktrdr_broker.__main__ import data_folder
    from ktrdr_zmq.config import load_settings

    return data_folder(load_settings({"broker.data_dir": given}))


def _show_findings(findings: Findings, end: str) -> None:
    rows = [("jobs", str(findings.jobs)), ("results", str(findings.results)), ("files", str(findings.files))]
    wrong = [
        *(f"Structure: {text}" for text in findings.structure),
        *(f"Damaged: {text}" for text in findings.damaged),
        *(f"Missing: {text}" for text in findings.missing),
    ]
    document = {
        "schema": 1, "sound": findings.sound, "jobs": findings.jobs, "results": findings.results, "files": findings.files,
        "structure": findings.structure, "damaged": findings.damaged, "missing": findings.missing,
    }  # fmt: skip
    face().out.show(document, Fields(rows, title="Intact"), *(wrong or ["Nothing is damaged."]), end)
    finish(0 if findings.sound else EXIT_FAILED)


@broker.command("pause")
def pause() -> None:
    """Give no more jobs to workers; those that run go on."""
    _switch("pause", "Dispatch is paused; running jobs go on. Go on with: ktrdr broker unpause")


@broker.command("unpause")
def unpause() -> None:
    """Give jobs to workers again."""
    _switch("unpause", "Dispatch is on.")


def _switch(action: str, text: str) -> None:
    answer = talk(lambda client: client.admin(action))
    face().out.show({"schema": 1, **answer}, text)


@group("worker")
def worker() -> None:
    """Run a worker."""


@worker.command("run")
@click.option("--id", metavar="NAME", help="This worker's name (default <hostname>-worker).")
@click.option("--kinds", metavar="K,K", help="Kinds of jobs to take (default: all that are installed).")
@click.option("--slots", metavar="S", help="Jobs at once for each tag, for example cpu=4,gpu=1.")
@click.option("--gpus", metavar="I,I", help="Indices of the GPUs to use (default: all).")
@click.option("--threads", metavar="N", help="Threads for each job (default: as the job says).")
@click.option("--state-dir", metavar="D", help="Folder of the worker's id, unsent results and cache.")
@click.option("--simulate-gpu", is_flag=True, help="Offer a gpu slot without a GPU, for trying things out.")
@click.option("--handlers", metavar="KIND=MODULE:ATTR", multiple=True, help="A handler that no installed package names; repeatable.")
@_LEVEL
@_FORMAT
@_READY
def run_worker(**options: Any) -> None:
    """Run a worker until SIGTERM or Ctrl+C; then it hands its jobs back and leaves.

    On another machine than the broker's: ktrdr worker run --broker 192.168.1.100
    """
    from ktrdr_worker.__main__ import main

    finish(main(words({"broker": face().broker, **options})))


def words(options: dict[str, Any]) -> list[str]:
    """Options as words of a command line again."""
    if face().quiet and not options.get("log_level"):
        options = {**options, "log_level": "warning"}
    found: list[str] = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            found.append(option)
        elif isinstance(value, tuple):
            for item in value:
                found += [option, item]
        elif value is not None and value is not False:
            found.append(f"{option}={value}")
    return found
