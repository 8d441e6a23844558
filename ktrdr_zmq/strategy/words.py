"""What pydantic finds wrong with a section, in words for people."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from ktrdr_zmq.strategy.problems import did_you_mean


def in_words(detail: Any, kind: type[BaseModel], loc: tuple[str | int, ...]) -> str:  # noqa: PLR0911  # a table of texts
    """What pydantic found, in words for people."""
    context = detail.get("ctx", {})
    given = detail.get("input")
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key{did_you_mean(str(loc[-1]), keys_of(kind, loc[:-1]))}"
        case "missing":
            return "is missing"
        case "literal_error":
            return f"must be {context['expected']}, not {given!r:.60}"
        case "value_error":
            return str(context.get("error", detail["msg"]))
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            word = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below", "less_than_equal": "at most"}[
                detail["type"]
            ]
            limit = next(iter(context.values()))
            return f"must be {word} {limit:g}, not {str(given)[:20]}"
        case "int_type" | "int_from_float":
            return f"must be a whole number, not {given!r:.60}"
        case "float_type" | "finite_number":
            return f"must be a number, not {given!r:.60}"
        case "bool_type":
            return f"must be true or false, not {given!r:.60}"
        case "string_type":
            return f"must be text, not {given!r:.60}"
        case "list_type" | "sequence_str" | "is_instance_of":
            return f"must be a list, not {given!r:.60}"
        case "model_type" | "dict_type":
            return "must hold keys"
        case "too_short":
            return "must not be empty"
    message = str(detail["msg"])
    return message[:1].lower() + message[1:]


def keys_of(kind: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that a section knows."""
    current: Any = kind
    for part in loc:
        field = current.model_fields.get(part) if isinstance(part, str) else None
        if field is None:
            return []
        options = [
            option
            for option in (field.annotation, *get_args(field.annotation))
            if isinstance(option, type) and issubclass(option, BaseModel)
        ]
        if not options:
            return []
        current = options[0]
    return list(current.model_fields)
