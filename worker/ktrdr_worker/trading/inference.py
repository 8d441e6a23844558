"""A trained model over bars: what it says of all of them in one pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import DataError
from ktrdr_worker.trading.bundle import Trained
from ktrdr_worker.trading.features import build, scale
from ktrdr_worker.trading.frames import Frames


def predict(model: Trained, frames: Frames, device: str = "cpu", tick: Callable[[float], None] = lambda _share: None) -> tuple[Array, int]:
    """The probability of each class, or the predicted return, at the close of every bar of the base timeframe.

    Parameters
    ----------
    model : Trained
    frames : Frames
    device : str
    tick : callable, optional
        Gets the share that is done, 0 to 1, after each feature and before each chunk of bars, and may raise to stop.

    Returns
    -------
    outputs : array of float64, shape (n, classes), or (n,) for returns
        NaN before the warm-up is over.
    warmup : int
        How many those are: the indicators' warm-up, and what the first window of the network reads before its last bar.
    """
    features = build(model.strategy, frames, lambda share: tick(share / 2))
    window = model.strategy.model.window
    matrix = torch.from_numpy(scale(features.values[features.warmup :], model.scalings)).to(device)
    if len(matrix) < window:
        raise DataError(f"The model reads {window} bars at a time; only {len(matrix)} have features.")
    positions = torch.arange(window - 1, len(matrix), device=device)
    warmup = features.warmup + window - 1
    said = networks.predict(model.network.to(device), matrix, positions, window, lambda share: tick((1 + share) / 2)).numpy()
    if not np.isfinite(said).all():
        raise DataError("The model gives outputs that are no numbers on these bars.")
    return np.concatenate((np.full((warmup, *said.shape[1:]), np.nan), said)), warmup
