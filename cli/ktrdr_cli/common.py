"""What all commands share: the options that are accepted anywhere, the classes that add them, and the way to the broker.

Light: nothing here loads more than click and the standard library before a command runs.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ktrdr_cli.output import Output, make_output

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient

T = TypeVar("T")


class Face:
    """What was said before or after the command: where the broker is, and in which form to answer."""

    def __init__(self) -> None:
        self.broker: str | None = None
        self.json = False
        self.quiet = False
        self._out: Output | None = None

    @property
    def out(self) -> Output:
        """Where the command's words go; settled when it is first used."""
        if self._out is None:
            self._out = make_output(json=self.json, quiet=self.quiet)
        return self._out


def face() -> Face:
    """The face of the running command."""
    return click.get_current_context().find_root().ensure_object(Face)


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def remember(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.find_root().ensure_object(Face), name, value)

    return remember


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from ktrdr_zmq.version import __version__

        shown = ctx.find_root().ensure_object(Face)
        shown.out.show({"schema": 1, "version": __version__}, f"ktrdr {__version__}", essence=[__version__])
        ctx.exit()


GLOBAL: tuple[click.Option, ...] = (
    click.Option(
        ["--broker"], metavar="ADDRESS", expose_value=False, callback=_remember("broker"),
        help="The broker: an IP, IP:port or tcp://IP:port. Otherwise KTRDR_BROKER, the configuration file, or the running 'ktrdr up'.",
    ),
    click.Option(
        ["--json"], is_flag=True, is_eager=True, expose_value=False, callback=_remember("json"),
        help="Print one JSON object; errors as {error, code, hint} on stderr.",
    ),
    click.Option(
        ["--quiet", "-q"], is_flag=True, is_eager=True, expose_value=False, callback=_remember("quiet"),
        help="Print only ids and names, one a line; no progress, no notes.",
    ),
    click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version and exit.",
    ),
)  # fmt: skip
"""Accepted before and after any command."""


class _Shared(click.Command):
    """Adds the global options, and shows them apart from a command's own."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *GLOBAL]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (shared if param in GLOBAL or "--help" in param.opts else own).append(record)
        for title, records in (("Options", own), ("Options of every command", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Command(_Shared):
    """A command that takes the global options too."""


class Group(_Shared, click.Group):
    """A noun with its verbs."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None:
            import difflib

            close = difflib.get_close_matches(word, self.list_commands(ctx), 1)
            meant = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(self.list_commands(ctx))}."
            ctx.fail(f"There is no command {word!r}.{meant}")
        return super().resolve_command(ctx, args)


class Entry(NamedTuple):
    """A command of the top level, loaded when it is needed."""

    target: str
    help: str
    hidden: bool = False


class LazyGroup(Group):
    """The top level: knows the names and one line for each, so that its help loads none of the commands.

    Parameters
    ----------
    entries : dict of str to Entry
        In the order of the help; ``target`` is ``module:attribute``.
    """

    def __init__(self, *args: Any, entries: dict[str, Entry], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in self.entries.items() if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.entries.items() if not entry.hidden])


def group(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Group]:
    """Make a noun; the function's docstring is its help."""
    return click.group(name, cls=Group, **settings)


# ---------------------------------------------------------------------------------------------------------------- the broker


def connect(broker: str | None) -> AbstractAsyncContextManager[AsyncClient]:
    """A client; tests put another in its place."""
    from ktrdr_zmq.client import AsyncClient

    return AsyncClient(broker)


def talk(work: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """Connect, do what is to be done, and disconnect."""
    shown = face()

    async def run() -> T:
        async with connect(shown.broker) as client:
            return await work(client)

    return asyncio.run(run())


def finish(code: int) -> None:
    """End the command with an exit code."""
    if code:
        click.get_current_context().exit(code)
