"""HTML from Python such that no text becomes markup by accident: a plain string is always escaped, wherever it came from."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = frozenset({"meta", "br"})


class Markup(str):
    """Text that is HTML already. Only `el` and `raw` make it."""

    __slots__ = ()


Child = str | Iterable["Child"]


def el(tag: str, *children: Child, **attributes: str | bool) -> Markup:
    """An element.

    Parameters
    ----------
    tag : str
    children : str, Markup, or iterables of them
        Strings are escaped; Markup is taken as it is.
    attributes
        A trailing underscore is left away (``class_``), others become dashes; True stands alone, False and an empty text are left out.
    """
    named = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Markup(f"<{tag}{named}>")
    return Markup(f"<{tag}{named}>{joined(*children)}</{tag}>")


def joined(*children: Child) -> Markup:
    """Children one after the other, as one piece of HTML."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(html.escape(child))
        else:
            parts.append(joined(*child))
    return Markup("".join(parts))


def raw(text: str) -> Markup:
    """Text of this package's own that is HTML, script or style."""
    return Markup(text)


def _attribute(name: str, value: str | bool) -> str:
    shown = name.rstrip("_").replace("_", "-")
    if isinstance(value, bool) or not value:
        return f" {shown}" if value else ""
    return f' {shown}="{html.escape(value)}"'
