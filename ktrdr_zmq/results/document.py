"""What every result has in common: schema, plain form, digest of the outcome, and the bars that it is about."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self, cast

import msgspec

from ktrdr_zmq.errors import NewerSchema, PayloadError

SCHEMA: Final = 1

CIRCUMSTANCES: Final = frozenset({"device", "digest", "duration_s", "fingerprint", "threads"})
"""Fields of a result that say where and how it was computed, and not what came out: they are no part of its digest."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A result as a whole: knows its schema and converts to and from plain dictionaries."""

    KIND: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """The plain form: dictionaries, lists, strings and numbers, ready for MessagePack or JSON.

        Raises
        ------
        ValueError
            When a figure is NaN or infinite; undefined ones must be ``None``.
        """
        plain = {"schema": SCHEMA, "kind": self.KIND, **cast("dict[str, Any]", msgspec.to_builtins(self))}
        _refuse_non_finite(plain, self.KIND)
        return plain

    def outcome_digest(self) -> str:
        """SHA-256 over everything that is equal when the same job is done again on another worker: all fields but ``CIRCUMSTANCES``.

        The fields are written as JSON with sorted keys and without spaces; numbers have the shortest form that reads back as the same
        bits. Files count by their own digests, which are fields.
        """
        plain = {key: value for key, value in self.to_dict().items() if key not in CIRCUMSTANCES}
        return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()

    def sealed(self) -> Self:
        """The same with its ``digest`` filled in."""
        return msgspec.structs.replace(self, digest=self.outcome_digest())

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote.

        Raises
        ------
        NewerSchema
            When the document says a schema above the one known here.
        PayloadError
            When it is another kind of document, or a field is missing or of the wrong type.
        """
        _check_schema(plain, cls.KIND)
        try:
            return msgspec.convert({k: v for k, v in plain.items() if k not in ("schema", "kind")}, cls)
        except msgspec.ValidationError as error:
            raise PayloadError(f"This is not a valid {cls.KIND} result: {error}") from error


class DataUsed(msgspec.Struct, frozen=True, kw_only=True):
    """The bars a job worked on.

    ``timeframe`` is the one that is decided on, ``bars`` counts its bars between ``first`` and ``last`` (opens, ISO 8601, UTC);
    ``warmup_bars`` of them only fed the indicators. ``digest`` is the SHA-256 of the file as submitted.
    """

    symbol: str
    timeframe: str
    digest: str
    filename: str
    origin: str
    source_timeframe: str
    bars: int
    warmup_bars: int
    gaps: int
    first: str
    last: str


def _check_schema(plain: Mapping[str, Any], kind: str) -> None:
    schema = plain.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise PayloadError(f"The {kind} result does not say its schema.")
    if schema > SCHEMA:
        raise NewerSchema(f"The {kind} result has schema {schema}; this release reads up to schema {SCHEMA}.")
    if plain.get("kind") != kind:
        raise PayloadError(f"A result of kind {plain.get('kind')!r} was given where one of kind {kind!r} is needed.")


def _refuse_non_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}; an undefined figure must be None")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{where}[{index}]")
