"""The real look-ahead check in a worker whose oscillator is a bar ahead; loaded with ``--handlers check-lookahead=peeking:handler``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ktrdr_worker.jobs.checks import lookahead
from ktrdr_worker.trading import indicators

honest = indicators.FUNCTIONS["cmo_unsmoothed"]


def peeking(*args: Any, **parameters: Any) -> Any:
    values = honest(*args, **parameters)
    return np.append(values[1:], values[-1])


indicators.FUNCTIONS["cmo_unsmoothed"] = peeking

handler = lookahead
