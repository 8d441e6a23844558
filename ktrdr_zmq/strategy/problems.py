"""What is wrong with a strategy: every problem, with its place in the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from ktrdr_zmq.errors import UsageError


class Problem(NamedTuple):
    """One mistake: ``where`` is ``file:line`` or ``--set``, ``path`` the key path, for example ``training.epochs``."""

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.path}: {self.message}" if self.path else f"{self.where}: {self.message}"


class StrategyInvalid(UsageError):
    """The strategy is not valid.

    Attributes
    ----------
    problems : list of Problem
        All of them.
    """

    code = "STRATEGY"

    def __init__(self, name: str, problems: list[Problem]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n  ".join(map(str, problems))
        super().__init__(
            f"The strategy {name} is not valid ({count}):\n  {lines}",
            hint="See a valid one with: ktrdr strategies show neuro_mean_reversion",
        )
        self.problems = problems


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` did you mean ...?`` for a word that resembles a known one, else the known ones if they are few."""
    names = list(known)
    close = difflib.get_close_matches(word, names, 1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 20 else ""
