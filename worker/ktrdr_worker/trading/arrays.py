"""The one type of all arrays here; what is in them stands in the docstrings."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
