"""The forms of output: terminal, plain, JSON and quiet."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import sys

import pytest

from ktrdr_cli.blocks import Column, Fields, Table, plain_text
from ktrdr_cli.output import JsonOutput, Output, PipeClosed, PlainOutput, TerminalOutput, make_output
from ktrdr_cli.texts import ago, octets, past_moment, seconds, span
from ktrdr_zmq.errors import Refused, UsageError
from ktrdr_zmq.figures import figure

TABLE = Table([Column("NAME"), Column("N", right=True)], [["a", "1"], ["long name", "12"]], title="Things", empty="None.")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_plain_table_is_aligned_and_not_cut() -> None:
    assert plain_text(TABLE) == "Things\nNAME        N\na           1\nlong name  12"
    assert plain_text(TABLE._replace(rows=[])) == "Things\nNone."
    assert plain_text(Fields([("a", "1\n2"), ("long", "x")])) == "a     1\n      2\nlong  x"


def test_the_form_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make_output(json=True, quiet=True)) is JsonOutput
    assert type(make_output(json=False, quiet=True)) is Output
    assert type(make_output(json=False, quiet=False)) is PlainOutput
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert type(make_output(json=False, quiet=False)) is TerminalOutput
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_output(json=False, quiet=False)) is PlainOutput


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch, colour: bool) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    (monkeypatch.delenv if colour else monkeypatch.setenv)("NO_COLOR", *([] if colour else ["1"]), **({"raising": False} if colour else {}))  # type: ignore[operator]
    form = TerminalOutput()
    form.show({}, "Text [bold]as it is[/bold]", Fields([("name", "x" * 100)]), TABLE._replace(rows=[["a\x1b[2J" + "y" * 100, "1"]]))
    form.error(Refused("No.", hint="Later."))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert "[bold]as it is[/bold]" in plain
    assert "\x1b[2J" not in plain
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 80
    assert ("\x1b[31m" in err.getvalue()) is colour


def test_a_progress_bar_is_drawn_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    form = TerminalOutput()
    with form.progress() as meter:
        meter.bar("k", "training x", "training", 0.25, "epoch 1 of 4")
        meter.say("beside it")
        meter.bar("k", "training x", "done", 1.0, "")
    assert out.getvalue() == ""
    assert "100 %" in err.getvalue()
    assert "beside it" in err.getvalue()


def test_a_board_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with TerminalOutput().board() as board:
        board.draw("title", TABLE)
        board.draw("other title", TABLE)
    assert board.live
    assert "other title" in out.getvalue()


def test_plain_progress_is_a_line_when_something_changed(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainOutput().progress() as meter:
        for percent in range(0, 101, 2):
            meter.bar("k", "job", "work", percent / 100, "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "job: 100% work"


def test_json_knows_times_arrays_octets_and_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    JsonOutput().show({"t": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "b": b"\x01", "n": float("inf"), "l": (1.5, float("nan"))})
    assert json.loads(capsys.readouterr().out) == {"t": "2026-01-01T00:00:00+00:00", "b": "01", "n": None, "l": [1.5, None]}


def test_a_closed_pipe_has_its_own_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(PipeClosed):
        PlainOutput().raw("x")


@pytest.mark.parametrize(
    "value, unit, text",
    [
        (0.0525, "fraction", "5.25 %"), (None, "fraction", "-"), (101954.414, "currency", "101,954.41"), (12.34, "days", "12.3 d"),
        (3, "count", "3"), (13.69, "bars", "13.7"), (1.2345, "ratio", "1.234"), (0.693147, "nats", "0.693"),
    ],
)  # fmt: skip
def test_figures_by_unit(value: float | None, unit: str, text: str) -> None:
    assert figure(value, unit) == text


@pytest.mark.parametrize(
    "value, text", [(None, "-"), (0.04, "0.0 s"), (42.4, "42 s"), (185, "3:05 min"), (7800, "2:10 h"), (300_000, "3 d")]
)
def test_durations(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_ages_and_sizes_and_moments() -> None:
    now = dt.datetime(2026, 6, 2, tzinfo=dt.UTC)
    assert ago(now - dt.timedelta(minutes=3), now) == "3 min"
    assert ago(now + dt.timedelta(minutes=3), now) == "0 s"
    assert ago(now - dt.timedelta(days=12), now) == "12 d"
    assert (octets(999), octets(1500), octets(2.5e12)) == ("999 B", "1.5 kB", "2.5 TB")
    assert span("2w") == dt.timedelta(days=14)
    assert span("9" * 30 + "d") is None
    assert past_moment("2026-06-30T00:00:00+00:00", "--since") == dt.datetime(2026, 6, 30, tzinfo=dt.UTC)
    with pytest.raises(UsageError, match="--since"):
        past_moment("9999999d", "--since")
