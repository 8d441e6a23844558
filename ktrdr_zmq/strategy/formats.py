"""How a file of bars is written: what a person says about a foreign one, and what holds for those named SYMBOL_TIMEFRAME.csv. Pure data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

from ktrdr_zmq.errors import UsageError

FIELDS: Final = ("time", "open", "high", "low", "close", "volume")
EPOCHS: Final = {"unix": 1_000_000_000, "unix-ms": 1_000_000, "unix-us": 1_000}
"""Date formats that count from 1970: nanoseconds in a unit."""
OFFSET: Final = re.compile(r"[+-](?:0\d|1[0-4]):[0-5]\d")


class BarFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a file of bars is written; the defaults are those of a canonical file.

    Attributes
    ----------
    columns : dict of str to str
        The file's column for ``time``, ``open``, ``high``, ``low``, ``close`` and ``volume``, where it has another name: a name in any
        case, ``#N`` for the N-th column of a file without a header, two joined by ``+`` for a date and a time.
    timezone : str
        Of times without an offset: an IANA name, or an offset such as ``+02:00``.
    separator, decimal, thousands : str
        Between columns, before decimals, between thousands (empty: there is nothing).
    date_format : str
        As for `datetime.strptime`, or ``unix``, ``unix-ms``, ``unix-us``; empty for ISO 8601.
    duplicates : str
        What is done about a time that is there twice: ``error``; ``first`` or ``last`` keeps that row; ``identical`` drops rows that say
        the same, and others are errors.
    bar_time : str
        Whether a time is that of a bar's ``open`` or ``close``.
    """

    columns: dict[str, str] = {}
    timezone: str = "UTC"
    separator: str = ","
    decimal: str = "."
    thousands: str = ""
    date_format: str = ""
    duplicates: str = "error"
    bar_time: str = "open"

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """Read what was said of a file.

        Raises
        ------
        UsageError
            When something of it makes no sense.
        """
        try:
            made = msgspec.convert({key: value for key, value in plain.items() if value is not None}, cls)
        except msgspec.ValidationError as error:
            raise UsageError(f"This does not say how a file of bars is written: {error}") from None
        made._check()
        return made

    @property
    def headless(self) -> bool:
        """Whether columns are told by their place."""
        return any(name.startswith("#") for name in self.columns.values())

    def _check(self) -> None:
        wrong = next((field for field in self.columns if field not in FIELDS), None)
        if wrong is not None:
            raise UsageError(f"There is no column {wrong!r} to fill; there are {', '.join(FIELDS)}.")
        parts = [part for name in self.columns.values() for part in name.split("+")]
        if not all(part.strip() for part in parts) or any("+" in name for field, name in self.columns.items() if field != "time"):
            raise UsageError("A column is named by its name in the file; only the time may be made of two, as in time=Date+Time.")
        if self.headless and (not all(re.fullmatch(r"#[1-9]\d?", part) for part in parts) or set(FIELDS[:-1]) - set(self.columns)):
            raise UsageError("Where columns are told by their place, all are: time=#1,open=#2,high=#3,low=#4,close=#5.")
        for what, sign, allowed in (
            ("separator", self.separator, "[^\\w\\s\"'+-]|[\\t ]"), ("decimal sign", self.decimal, "[.,]"),
            ("sign between thousands", self.thousands, "[.,' ]?"),
        ):  # fmt: skip
            if not re.fullmatch(allowed, sign):
                raise UsageError(f"{sign!r} cannot be the {what}.")
        if self.decimal == self.thousands:
            raise UsageError(f"{self.decimal!r} cannot stand before decimals and between thousands.")
        for what, value, choices in (
            ("duplicates", self.duplicates, ("error", "first", "last", "identical")), ("bar time", self.bar_time, ("open", "close")),
        ):  # fmt: skip
            if value not in choices:
                raise UsageError(f"{value!r} is none of the choices for {what}: {', '.join(choices)}.")
        if self.date_format and self.date_format not in EPOCHS and not re.search("%[YyGcx]", self.date_format):
            raise UsageError(
                f"{self.date_format!r} is no date format.", hint="Write it as for strptime, for example %d.%m.%Y %H:%M, or unix, unix-ms."
            )
        if not (OFFSET.fullmatch(self.timezone) or re.fullmatch(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}", self.timezone)):
            raise UsageError(f"{self.timezone!r} is no time zone; write it as Europe/Berlin or +02:00.")


CANONICAL: Final = BarFormat()
