"""The membership functions that a fuzzy set may use: their parameters by name and order, and what these may be. Data only.

``ktrdr_worker.trading.fuzzy`` computes them; a test there compares the names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

SHAPES: Final[Mapping[str, tuple[str, ...]]] = {
    "triangular": ("a", "b", "c"),
    "trapezoidal": ("a", "b", "c", "d"),
    "gaussian": ("mean", "sigma"),
    "bell": ("width", "slope", "center"),
    "sigmoid": ("center", "slope"),
}
"""Parameters in the order in which ``parameters: [...]`` lists them."""

CORNERS: Final = {3: "triangular", 4: "trapezoidal"}
"""What a plain list of so many numbers means."""


def what_is_wrong(shape: str, numbers: Sequence[float]) -> str | None:
    """Say why these numbers make no set of this shape; None if they do. There are as many as the shape has parameters."""
    named = dict(zip(SHAPES[shape], numbers, strict=True))
    match shape:
        case "triangular" | "trapezoidal":
            if list(numbers) != sorted(numbers):
                return f"corners must not fall: {', '.join(f'{n:g}' for n in numbers)}"
            if numbers[0] == numbers[-1]:
                return "all corners are the same, so that the set is a single point"
        case "gaussian" | "bell":
            for name in ("sigma", "width", "slope"):
                if named.get(name, 1.0) <= 0:
                    return f"the {name} of a {shape} must be above 0, not {named[name]:g}"
        case "sigmoid":
            if named["slope"] == 0:
                return "the slope of a sigmoid must not be 0: above 0 it rises, below 0 it falls"
    return None
