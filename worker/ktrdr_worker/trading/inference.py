"""A trained model over bars: the probabilities of all of them in one pass."""

from __future__ import annotations

import numpy as np
import torch

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars, DataError
from ktrdr_worker.trading.bundle import Trained
from ktrdr_worker.trading.features import build, scale


def predict(model: Trained, bars: Bars, device: str = "cpu") -> tuple[Array, int]:
    """The probability of each class at every bar's close.

    Parameters
    ----------
    model : Trained
    bars : Bars
    device : str

    Returns
    -------
    probabilities : array of float64, shape (n, classes)
        NaN in the rows before the warm-up is over.
    warmup : int
        How many those are.
    """
    features = build(model.strategy, bars)
    rows = torch.from_numpy(scale(features.values[features.warmup :], model.scalings)).to(device)
    probabilities = np.full((len(bars.opens), len(model.description.classes)), np.nan)
    probabilities[features.warmup :] = networks.probabilities(model.network.to(device), rows).numpy()
    if not np.isfinite(probabilities[features.warmup :]).all():
        raise DataError("The model gives probabilities that are no numbers on these bars.")
    return probabilities, features.warmup
