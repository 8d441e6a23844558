"""docs/cli.md names every command and option, because it is made from them."""

from __future__ import annotations

import pytest

from tests.unit.cli.reference import DOCUMENT, commands, text


def test_the_document_is_what_the_commands_say() -> None:
    """Make it anew with: python -m tests.unit.cli.reference"""
    assert DOCUMENT.read_text(encoding="utf-8") == text()


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=" ".join)
def test_every_command_has_a_section(words: tuple[str, ...]) -> None:
    assert f"# {' '.join(words)}\n" in DOCUMENT.read_text(encoding="utf-8")
