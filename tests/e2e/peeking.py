"""The real look-ahead check in a worker whose RSI knows the bar to come; loaded with ``--handlers check-lookahead=peeking:handler``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ktrdr_worker.jobs.checks import lookahead
from ktrdr_worker.trading import indicators

honest = indicators.FUNCTIONS["rsi"]


def peeking(*args: Any, **parameters: Any) -> Any:
    values = honest(*args, **parameters)
    return np.append(values[1:], values[-1])


indicators.FUNCTIONS["rsi"] = peeking

handler = lookahead
