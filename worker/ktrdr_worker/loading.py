"""Finds handlers. `find_handlers` reads names only and belongs to the agent; `load_handler` imports code and belongs to children."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from ktrdr_worker.handler import ENTRY_POINT_GROUP, Handler


def find_handlers(extra: list[str] | tuple[str, ...] = ()) -> dict[str, str]:
    """The kinds that installed packages offer, with the place of each handler; nothing is imported.

    Parameters
    ----------
    extra : list of str
        ``kind=module:attribute``, added to the installed ones or in place of them.

    Raises
    ------
    ValueError
        For an entry of ``extra`` that has another form.
    """
    found = {point.name: point.value for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)}
    for entry in extra:
        kind, _, value = entry.partition("=")
        if not kind or ":" not in value:
            raise ValueError(f"--handlers takes KIND=MODULE:ATTRIBUTE, not {entry!r}.")
        found[kind] = value
    return found


def load_handler(kind: str, value: str) -> Handler:
    """Import a handler and check that it is one.

    Raises
    ------
    TypeError
        If what is found there does not keep to the contract.
    """
    module, _, attribute = value.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    if isinstance(found, type) or (callable(found) and not hasattr(found, "run")):
        found = found()
    versions = getattr(found, "versions", None)
    if getattr(found, "kind", None) != kind or not callable(getattr(found, "run", None)):
        raise TypeError(f"{value} is no handler of {kind}: it needs kind = {kind!r}, versions and run(body, context).")
    if not (isinstance(versions, tuple) and len(versions) == 2 and 1 <= versions[0] <= versions[1]):
        raise TypeError(f"{value}: versions must be (lowest, highest) schema, not {versions!r}.")
    handler: Handler = found
    return handler
