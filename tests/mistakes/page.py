"""Writes docs/mistakes.md from the mistakes themselves: ``python -m tests.mistakes.page`` in the repository's root."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mistakes.data import DATA
from tests.mistakes.harness import Told, in_data, in_parameters, in_strategy
from tests.mistakes.parameters import PARAMETERS
from tests.mistakes.strategies import MINE, STRATEGIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "mistakes.md"
ABOUT = """\
# Mistakes, and what is said of them

<!-- Written by: python -m tests.mistakes.page -->

A message says what is wrong, where, and often what to do. In a strategy it names file, line and key path, and all mistakes are listed at
once. In a file of bars it names file and row, and the first mistake ends the job. `ktrdr` exits with 2 for what was said wrongly, and with
1 for a job that failed. None of these mistakes leaves anything behind: no job, no model, no half-written file. A test makes every one.
"""


def slug(text: str) -> str:
    """A cell of a table: one line, and no bar in it."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def code(text: str) -> str:
    """Something that is written literally."""
    return "`" + text.strip("\n").replace("\n", "\u23ce").replace("\t", "\u21e5") + "`"


def row(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(slug, cells))} |"


def told(found: Told) -> str:
    """Message and hint."""
    return f"{found.message} {found.hint}".strip()


def strategy_rows() -> Iterator[tuple[str, Told]]:
    """A row for each mistake in a strategy."""
    for mistake in STRATEGIES:
        with tempfile.TemporaryDirectory() as folder:
            found = in_strategy(mistake, Path(folder))
            yield row(code(mistake.right), code(mistake.wrong), found.message), found


def data_rows() -> Iterator[tuple[str, Told]]:
    """A row for each mistake in a file of bars."""
    for mistake in DATA:
        with tempfile.TemporaryDirectory() as folder:
            found = in_data(mistake, Path(folder))
            yield row(mistake.what, told(found)), found


def parameter_rows() -> Iterator[tuple[str, Told]]:
    """A row for each mistake on the command line."""
    for mistake in PARAMETERS:
        with tempfile.TemporaryDirectory() as folder:
            found = in_parameters(mistake, Path(folder))
            yield row(code(f"ktrdr {mistake.words}"), told(found)), found


def table(titles: Sequence[str], rows: Iterator[tuple[str, Told]]) -> str:
    """A whole table."""
    return "\n".join([row(*titles), "|" + "---|" * len(titles), *(line for line, _ in rows)])


def text() -> str:
    """The whole page."""
    return "\n".join([
        ABOUT, "## In a strategy", "", "Of this strategy, `mine.yaml`:", "", "```yaml", MINE + "```", "",
        table(["instead of", "somebody writes", "said, with exit code 2"], strategy_rows()), "", "## In a file of bars", "",
        "Of the built-in `EURUSD_1h.csv`, or of what is asked of it with the strategy `neuro_mean_reversion`:", "",
        table(["what is the matter", "said, with exit code 1"], data_rows()), "", "## On the command line", "",
        table(["words", "said, with exit code 2"], parameter_rows()), "",
    ])  # fmt: skip


if __name__ == "__main__":
    DOCUMENT.write_text(text(), encoding="utf-8")
