"""The line that whoever started a daemon waits for is written once, and nobody's absence hurts."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ktrdr_zmq.notify import ReadyLine


def test_only_the_first_line_is_written_and_the_descriptor_is_let_go(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    line = ReadyLine(writer)
    line.say({"ready": True})
    with (tmp_path / "precious").open("wb", buffering=0) as file:
        assert file.fileno() == writer, "the number is another file's by now"
        line.say({"ready": False})
        file.write(b"whole")
    assert (tmp_path / "precious").read_bytes() == b"whole"
    with os.fdopen(reader) as heard:
        assert json.loads(heard.read()) == {"ready": True}


def test_whoever_waited_has_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ReadyLine(writer).say({"ready": True})
    ReadyLine(-1).say({"ready": True})
