"""How a deliberate bug is put into the real code for a while, and taken out again. What it replaces must be there: a bug whose place has
gone is an error, not a bug that was found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

Mutation = Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    """Put something else in an attribute's place for a while."""
    old = owner.__dict__[name]
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


@contextlib.contextmanager
def added(owner: Any, name: str, new: Any) -> Iterator[None]:
    """Put something where there was no attribute of the class for a while."""
    assert name not in owner.__dict__
    setattr(owner, name, new)
    try:
        yield
    finally:
        delattr(owner, name)


@contextlib.contextmanager
def both(*mutations: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """Several changes that make one bug."""
    with contextlib.ExitStack() as stack:
        for mutation in mutations:
            stack.enter_context(mutation)
        yield
