"""Writes docs/cli.md from the commands themselves: ``python -m tests.unit.cli.reference`` in the repository's root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from ktrdr_cli.common import GLOBAL
from ktrdr_cli.main import cli

DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"

PREFACE = """\
# The command line

Made from the commands themselves by `python -m tests.unit.cli.reference`; a test compares. Do not edit it by hand.

`ktrdr NOUN VERB`. Answers go to stdout; notes, progress and errors go to stderr. Without a terminal there are plain lines and no colour;
`NO_COLOR` takes the colours away in a terminal too.

With `--json` a command prints one object with `"schema": 1` on stdout. `jobs watch` and `jobs logs -f` print one object a line, as things
happen. Errors are `{"error": ..., "code": ..., "hint": ...}` on stderr.

Ctrl+C while a job is watched leaves the job alone and says how to come back to it.

| exit code | meaning |
|---|---|
| 0 | done, or detached |
| 1 | the job failed |
| 2 | a mistake of use or configuration |
| 3 | refused |
| 4 | the broker cannot be reached |
| 5 | the job was cancelled |
| 6 | the job timed out, or the wait did |
| 130 | interrupted |
| 141 | whoever read the output has gone |

For several jobs the exit code is the worst: failed before timed out before cancelled before done.

Shell completion: `eval "$(_KTRDR_COMPLETE=bash_source ktrdr)"` for bash, `zsh_source` for zsh, `fish_source` for fish.
"""


def commands(node: click.Command = cli, words: tuple[str, ...] = ("ktrdr",)) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command but the top level and the hidden ones."""
    if len(words) > 1:
        yield words, node
    if isinstance(node, click.Group):
        ctx = click.Context(node)
        for name in node.list_commands(ctx):
            child = node.get_command(ctx, name)
            assert child is not None
            yield from commands(child, (*words, name))


def table(options: list[click.Option], ctx: click.Context) -> list[str]:
    """Options as a table."""
    lines = ["| option | meaning |", "|---|---|"]
    for option in options:
        record = option.get_help_record(ctx)
        if record is not None:
            names, meaning = (text.replace("|", "\\|") for text in record)
            lines.append(f"| `{names}` | {' '.join(meaning.split())} |")
    return lines if len(lines) > 2 else []


def section(words: tuple[str, ...], command: click.Command) -> list[str]:
    """One command."""
    ctx = click.Context(command, info_name=words[-1])
    arguments = [param.make_metavar(ctx) for param in command.params if isinstance(param, click.Argument)]
    own = [param for param in command.params if isinstance(param, click.Option)]
    paragraphs = [" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n")]
    lines = [f"{'##' if len(words) == 2 else '###'} {' '.join(words)}", ""]
    if not isinstance(command, click.Group):
        usage = " ".join([*words, *arguments, *(["[OPTIONS]"] if own else [])])
        lines += ["```text", usage, "```", ""]
    for paragraph in paragraphs:
        lines += [paragraph, ""]
    options = table(own, ctx)
    return [*lines, *options, ""] if options else lines


def text() -> str:
    """The whole document."""
    lines = [PREFACE, "## Options of every command", "", *table(list(GLOBAL), click.Context(cli)), ""]
    for words, command in commands():
        lines += section(words, command)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(text(), encoding="utf-8")
