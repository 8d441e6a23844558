"""Every mistake of the tables is told as docs/mistakes.md says, names its place, and leaves nothing behind.

Make the page anew with: ``python -m tests.mistakes.page``
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mistakes.data import DATA, InData
from tests.mistakes.harness import Told, in_data, in_parameters, in_strategy
from tests.mistakes.page import ABOUT, DOCUMENT, code, row, told
from tests.mistakes.parameters import PARAMETERS, InParameters
from tests.mistakes.strategies import MINE, STRATEGIES, InStrategy

pytestmark = [pytest.mark.science, pytest.mark.timeout(120)]

PAGE = DOCUMENT.read_text(encoding="utf-8").splitlines()


def name(mistake: Any) -> str:
    return re.sub(r"\W+", "-", getattr(mistake, "what", None) or getattr(mistake, "words", None) or mistake.wrong).strip("-")


def made(make: Callable[[Any, Path], Told], mistake: Any, folder: Path, exit_code: int) -> Told:
    found = make(mistake, folder)
    assert found.left == []
    assert found.code == exit_code
    return found


@pytest.mark.parametrize("mistake", STRATEGIES, ids=name)
def test_a_mistake_in_a_strategy(mistake: InStrategy, tmp_path: Path) -> None:
    found = made(in_strategy, mistake, tmp_path, 2)
    assert re.match(r"mine\.yaml:\d+: (is no valid YAML|[a-z_]+[\w.\[\]]*): ", found.message)
    assert row(code(mistake.right), code(mistake.wrong), found.message) in PAGE


@pytest.mark.parametrize("mistake", DATA, ids=name)
def test_a_mistake_in_a_file_of_bars(mistake: InData, tmp_path: Path) -> None:
    found = made(in_data, mistake, tmp_path, 1)
    assert re.search(r"EURUSD_\dh\.csv|EURUSD 1h|neuro_mean_reversion|training\.labels|bars of 1h|Too few bars", found.message)
    assert row(mistake.what, told(found)) in PAGE


@pytest.mark.parametrize("row_number", [7, 9, 10, 12, 20, 31, 32])
def test_what_is_wrong_in_a_row_names_the_row(row_number: int) -> None:
    assert any(f"EURUSD_1h.csv, row {row_number}: " in line for line in PAGE)


@pytest.mark.parametrize("mistake", PARAMETERS, ids=name)
def test_a_mistake_on_the_command_line(mistake: InParameters, tmp_path: Path) -> None:
    found = made(in_parameters, mistake, tmp_path, 2)
    assert row(code(f"ktrdr {mistake.words}"), told(found)) in PAGE


def test_the_page_has_these_mistakes_and_no_others() -> None:
    rows = [line for line in PAGE if line.startswith("| ")]
    assert len(rows) == len(STRATEGIES) + len(DATA) + len(PARAMETERS) + 3, "with the titles of three tables"
    assert len({line.rsplit(" | ", 1)[1] for line in rows}) >= 100, "distinct messages"
    assert "\n".join(PAGE).startswith(ABOUT)
    assert MINE in DOCUMENT.read_text(encoding="utf-8")
