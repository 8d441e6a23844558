"""The recorded dialogues are still those of the cores."""

from __future__ import annotations

from typing import Any

import pytest

from tests.traces.record import FOLDER, SCENES, played


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_the_dialogue_is_the_recorded_one(scene: Any) -> None:
    recorded = (FOLDER / f"{scene.__name__}.txt").read_text(encoding="utf-8")
    assert played(scene) == recorded, "if this change is wanted: python -m tests.traces.record"


def test_every_record_has_its_scene() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == {scene.__name__ for scene in SCENES}
