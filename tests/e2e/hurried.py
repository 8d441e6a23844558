"""The handler ``training``, writing a checkpoint after every epoch: so that being killed again and again costs little."""

from __future__ import annotations

from ktrdr_worker.jobs import training

training.CHECKPOINT_S = 0.0  # type: ignore[misc]
handler = training.handler
