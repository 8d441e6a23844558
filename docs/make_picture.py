"""Make docs/images/demo.svg: run ``ktrdr demo`` in a terminal of 92 columns and draw what stands in it at the end.

``pip install pyte`` first: it plays the terminal. Then ``python docs/make_picture.py``.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 92, 60
TARGET = Path(__file__).parent / "images" / "demo.svg"


def play(argv: list[str]) -> pyte.Screen:
    """Run a command in a terminal; returns the screen after its end."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    pid, master = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(LINES))
        os.environ.pop("NO_COLOR", None)
        os.execvp(argv[0], argv)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    try:
        while piece := os.read(master, 65_536):
            stream.feed(piece)
    except OSError:  # how a terminal says that its program has ended
        pass
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(f"{' '.join(argv)} ended with status {status}")
    return screen


def drawn(screen: pyte.Screen) -> Text:
    """What stands on the screen, with its colours."""
    text = Text()
    lines = [screen.buffer[row] for row in range(LINES)]
    while lines and not "".join(cell.data for cell in lines[-1].values()).strip():
        lines.pop()
    for line in lines:
        for column in range(COLUMNS):
            cell = line[column]
            colour = None if cell.fg == "default" else (f"#{cell.fg}" if len(cell.fg) == 6 else cell.fg.replace("brown", "yellow"))
            text.append(cell.data, Style(color=colour, bold=cell.bold))
        text.append("\n")
    return text


def main() -> None:
    """Run, draw, write."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print("$ ktrdr demo", style="bold")
    console.print(drawn(play(["ktrdr", "demo"])))
    TARGET.parent.mkdir(exist_ok=True)
    console.save_svg(str(TARGET), title="ktrdr demo")


if __name__ == "__main__":
    main()
