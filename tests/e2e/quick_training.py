"""The kind ``training`` with a checkpoint five times a second, loaded with ``--handlers training=quick_training:handler``."""

from __future__ import annotations

from ktrdr_worker.jobs import training

training.CHECKPOINT_S = 0.2  # type: ignore[misc]

handler = training.handler
