"""``ktrdr``: the table of commands, and the one place where errors become texts and exit codes.

Loading this module must stay cheap, because ``ktrdr --help`` does: a command's own module is loaded when the command is.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

import click

from ktrdr_cli.common import Entry, Face, LazyGroup
from ktrdr_cli.output import PipeClosed
from ktrdr_zmq.errors import EXIT_INTERRUPTED, EXIT_USAGE, KtrdrError, UsageError

EXIT_PIPE = 141
"""As a shell reports a process that a closed pipe ended."""

COMMANDS: dict[str, Entry] = {
    "demo": Entry("ktrdr_cli.demo:demo", "Train and backtest on a small cluster of its own, in one go."),
    "up": Entry("ktrdr_cli.cluster:up", "Start a broker and workers on this machine."),
    "down": Entry("ktrdr_cli.cluster:down", "Stop what 'ktrdr up' started."),
    "status": Entry("ktrdr_cli.status:status", "Show the broker's jobs, workers and disk use."),
    "models": Entry("ktrdr_cli.models:models", "Train models; list, show, compare and remove them."),
    "backtest": Entry("ktrdr_cli.backtest:backtest", "Backtest a trained model, make a report of it, check the model."),
    "jobs": Entry("ktrdr_cli.jobs:jobs", "List, watch, cancel, retry and explain jobs."),
    "workers": Entry("ktrdr_cli.workers:workers", "List, show and drain workers."),
    "strategies": Entry("ktrdr_cli.strategies:strategies", "List, show, validate and copy strategies."),
    "data": Entry("ktrdr_cli.data:data", "Import, list, show, check and remove bars that jobs can use."),
    "chaos": Entry("ktrdr_cli.chaos:chaos", "Disturb a cluster of your own, and count what became of every job."),
    "config": Entry("ktrdr_cli.config:config", "Show the settings and where they come from."),
    "broker": Entry("ktrdr_cli.daemons:broker", "Run a broker; pause and unpause dispatch; check its folder."),
    "worker": Entry("ktrdr_cli.daemons:worker", "Run a worker."),
    "operations": Entry("ktrdr_cli.jobs:jobs", "The earlier system's word for jobs.", hidden=True),
}

cli = LazyGroup(
    "ktrdr",
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Neural-network training and trading backtests on the machines you own: one broker, any number of workers.\n\n"
    "Begin with 'ktrdr demo', or with 'ktrdr up' and 'ktrdr models train --strategy neuro_mean_reversion'.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ktrdr``; returns the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``ktrdr``; the process's own by default.

    Returns
    -------
    int
        0 done or detached, 1 the job failed, 2 usage or configuration, 3 refused, 4 broker unreachable, 5 cancelled, 6 timed out,
        130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    face = Face()
    try:
        code = cli.main(args=words, prog_name="ktrdr", standalone_mode=False, obj=face)
        face.out.flush()
    except click.ClickException as error:
        face.json = face.json or "--json" in words
        if type(error).__name__ == "NoArgsIsHelpError" and not face.json:  # click 8.2 and later; before, it printed the help itself
            face.out.raw(error.format_message() + "\n")
            return EXIT_USAGE
        return _say(face, _usage_error(error))
    except KtrdrError as error:
        return _say(face, error)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _say(face, Interrupted())
    except PipeClosed:
        _silence_stdout()
        return EXIT_PIPE
    except OSError as error:
        return _say(face, UsageError(_os_error(error), code="OS"))
    return code if isinstance(code, int) else 0


class Interrupted(KtrdrError):
    """Interrupted."""

    code = "INTERRUPTED"
    exit_code = EXIT_INTERRUPTED


def _say(face: Face, error: KtrdrError) -> int:
    with contextlib.suppress(PipeClosed):
        face.out.flush()
        face.out.error(error)
    return error.exit_code


def _usage_error(error: click.ClickException) -> UsageError:
    ctx = getattr(error, "ctx", None)
    hint = f"See: {ctx.command_path} --help" if isinstance(ctx, click.Context) else ""
    return UsageError(error.format_message(), hint=hint)


def _os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _silence_stdout() -> None:
    """Let the interpreter flush into nothing at its end."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
