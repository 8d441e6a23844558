"""The one place of the command line that prints. Commands say what they have to show; here it gets its form.

`Output.show` takes the document (what ``--json`` prints) and the same for people as blocks. Answers go to stdout; notes, progress and
errors to stderr, so that both can be redirected apart. Four forms: a terminal (rich), plain lines, JSON, and quiet.
"""

from __future__ import annotations

import json as json_module
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from ktrdr_cli.blocks import Block, Fields, clean, plain_text, spaced

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from ktrdr_zmq.errors import KtrdrError


class PipeClosed(Exception):
    """Whoever read our output has gone."""


class Meter:
    """Where the progress of jobs is shown. This one shows nothing."""

    def bar(self, key: str, name: str, stage: str, fraction: float, detail: str) -> None:
        """Show how far a job is: ``fraction`` of the whole, ``stage`` in a word."""

    def say(self, text: str) -> None:
        """Say something beside the bars."""

    def event(self, document: Mapping[str, Any]) -> None:
        """Pass an event on to programs."""


class Notes(Meter):
    """Only what is said beside the bars."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def say(self, text: str) -> None:
        self._out.note(text)


class Output:
    """The quiet form, and what the forms have in common."""

    terminal = False
    streams = False
    """Whether watching prints an event a line."""

    def show(self, document: Mapping[str, Any], *blocks: Block, essence: Sequence[str] = ()) -> None:
        """Show an answer.

        Parameters
        ----------
        document : mapping
            What ``--json`` prints.
        blocks : str, Table or Fields
            The same for people.
        essence : sequence of str
            What ``--quiet`` prints, one a line.
        """
        for line in essence:
            self._out(f"{line}\n")

    def raw(self, text: str) -> None:
        """Print a text as it is: a file, a log."""
        self._out(text)
        self.flush()

    def line(self, document: Mapping[str, Any], text: str = "") -> None:
        """Show one of several answers at once: a line of JSON, or of text."""

    def note(self, text: str) -> None:
        """Say something that is no answer."""

    def error(self, error: KtrdrError) -> None:
        """Say what went wrong, and what to do."""
        _write(sys.stderr, f"{error.message}\n" + (f"{error.hint}\n" if error.hint else ""))

    def progress(self, *, stream: bool = False) -> AbstractContextManager[Meter]:
        """A place to show progress. With ``stream`` the JSON form prints each event as a line."""
        return _nothing()

    def board(self) -> AbstractContextManager[Board]:
        """A view that is drawn again and again, where the form has one."""
        return _no_board()

    def flush(self) -> None:
        """Send what was printed on its way."""
        _flush(sys.stdout)

    def _out(self, text: str) -> None:
        _write(sys.stdout, text)


class Board:
    """A view that is drawn again and again. This one is never drawn."""

    live = False

    def draw(self, *blocks: Block) -> None:
        """Replace what is shown."""


class JsonOutput(Output):
    """For programs: one object on stdout; watching prints one a line."""

    streams = True

    def show(self, document: Mapping[str, Any], *blocks: Block, essence: Sequence[str] = ()) -> None:
        self._out(_json(document, indent=2 if sys.stdout.isatty() else None) + "\n")

    def line(self, document: Mapping[str, Any], text: str = "") -> None:
        self._out(_json(document) + "\n")
        self.flush()

    def error(self, error: KtrdrError) -> None:
        _write(sys.stderr, _json(error.as_dict()) + "\n")

    def progress(self, *, stream: bool = False) -> AbstractContextManager[Meter]:
        return _same(_JsonMeter(self)) if stream else _nothing()


class PlainOutput(Output):
    """For people without a terminal: lines, no colour, nothing cut."""

    def show(self, document: Mapping[str, Any], *blocks: Block, essence: Sequence[str] = ()) -> None:
        self._out("".join(gap + plain_text(block) + "\n" for gap, block in spaced(blocks)))

    def line(self, document: Mapping[str, Any], text: str = "") -> None:
        self._out(clean(text) + "\n")
        self.flush()

    def note(self, text: str) -> None:
        _write(sys.stderr, clean(text) + "\n")

    def progress(self, *, stream: bool = False) -> AbstractContextManager[Meter]:
        return _same(_PlainMeter(self))


class TerminalOutput(PlainOutput):
    """For people at a terminal, by rich; NO_COLOR takes the colours away."""

    terminal = True

    def show(self, document: Mapping[str, Any], *blocks: Block, essence: Sequence[str] = ()) -> None:
        self._out(_rich_text(*blocks))

    def error(self, error: KtrdrError) -> None:
        if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
            super().error(error)
            return
        _write(sys.stderr, f"\x1b[31m{clean(error.message)}\x1b[0m\n" + (f"{clean(error.hint)}\n" if error.hint else ""))

    def progress(self, *, stream: bool = False) -> AbstractContextManager[Meter]:
        return _rich_meter(self) if sys.stderr.isatty() else super().progress(stream=stream)

    def board(self) -> AbstractContextManager[Board]:
        return _rich_board()


def make_output(*, json: bool, quiet: bool) -> Output:
    """The form that fits: as asked for, else by whether stdout is a terminal."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    if json:
        return JsonOutput()
    if quiet:
        return Output()
    return TerminalOutput() if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else PlainOutput()


# ---------------------------------------------------------------------------------------------------------------- octets


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        if stream is sys.stderr:
            stream.flush()
    except BrokenPipeError:
        raise PipeClosed from None


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except BrokenPipeError:
        raise PipeClosed from None


def _json(document: Mapping[str, Any], indent: int | None = None) -> str:
    return json_module.dumps(_finite(document), default=_other, ensure_ascii=False, indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null stands for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _other(value: Any) -> Any:
    for method in ("isoformat", "tolist", "hex"):  # times, arrays, octets
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)


class _PlainMeter(Meter):
    """A line when something has changed: the stage, ten more percent, or at the end."""

    def __init__(self, out: PlainOutput) -> None:
        self._out = out
        self._last: dict[str, tuple[str, int]] = {}

    def bar(self, key: str, name: str, stage: str, fraction: float, detail: str) -> None:
        step = (stage, int(fraction * 10 + 1e-9))
        if self._last.get(key) != step:
            self._last[key] = step
            self._out.note(f"{name}: {fraction:4.0%} {', '.join(filter(None, (stage, detail)))}")

    def say(self, text: str) -> None:
        self._out.note(text)


class _JsonMeter(Meter):
    def __init__(self, out: JsonOutput) -> None:
        self._out = out

    def event(self, document: Mapping[str, Any]) -> None:
        self._out.line(document)


@contextmanager
def _same(meter: Meter) -> Iterator[Meter]:
    yield meter


@contextmanager
def _nothing() -> Iterator[Meter]:
    yield Meter()


@contextmanager
def _no_board() -> Iterator[Board]:
    yield Board()


# ---------------------------------------------------------------------------------------------------------------- rich


def _console(file: TextIO) -> Console:
    from rich.console import Console

    return Console(file=file, highlight=False, markup=False, emoji=False)


def _rich_text(*blocks: Block) -> str:
    console = _console(sys.stdout)
    with console.capture() as capture:
        for gap, block in spaced(blocks):
            console.print(gap, end="")
            console.print(_rich(block), soft_wrap=isinstance(block, str))
    return capture.get()


def _rich(block: Block) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    if isinstance(block, str):
        return Text(clean(block))
    title = [Text(clean(block.title), style="bold")] if block.title else []
    if isinstance(block, Fields):
        grid = RichTable.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in block.rows:
            grid.add_row(Text(name), Text(clean(value)))
        return Group(*title, grid)
    if not block.rows:
        return Group(*title, Text(block.empty, style="dim"))
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for column in block.columns:
        table.add_column(
            column.title, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis",
            min_width=max((len(row[len(table.columns)]) for row in block.rows), default=0) if column.whole or column.right else None,
        )  # fmt: skip
    for index, row in enumerate(block.rows):
        table.add_row(*(Text(clean(cell)) for cell in row), style="bold" if index in block.strong else "")
    return Group(*title, table)


class _RichMeter(Meter):
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def bar(self, key: str, name: str, stage: str, fraction: float, detail: str) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(clean(name), total=1.0, detail="")
        self._progress.update(self._tasks[key], completed=fraction, detail=clean(", ".join(filter(None, (stage, detail)))))

    def say(self, text: str) -> None:
        from rich.text import Text

        self._progress.console.print(Text(clean(text)))


@contextmanager
def _rich_meter(out: TerminalOutput) -> Iterator[Meter]:
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column as RichColumn

    out.flush()
    columns = (
        TextColumn("{task.description}", markup=False, table_column=RichColumn(no_wrap=True, max_width=22)),
        BarColumn(bar_width=12), TextColumn("{task.percentage:3.0f} %", markup=False),
        TextColumn("{task.fields[detail]}", markup=False, table_column=RichColumn(no_wrap=True, ratio=1)),
    )  # fmt: skip
    with Progress(*columns, console=_console(sys.stderr), refresh_per_second=8, expand=True) as progress:
        yield _RichMeter(progress)


class _RichBoard(Board):
    live = True

    def __init__(self, live: Any) -> None:
        self._live = live

    def draw(self, *blocks: Block) -> None:
        from rich.console import Group

        self._live.update(
            Group(*(part for gap, block in spaced(blocks) for part in ([_rich(" ")] if gap else []) + [_rich(block)])), refresh=True
        )


@contextmanager
def _rich_board() -> Iterator[Board]:
    from rich.live import Live

    with Live(console=_console(sys.stdout), auto_refresh=False, transient=False) as live:
        yield _RichBoard(live)


def clock() -> str:
    """The time of day, for log lines."""
    return time.strftime("%H:%M:%S")
