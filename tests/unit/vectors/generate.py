"""Write the golden octets of every message: ``python -m tests.unit.vectors.generate``.

They are what a second implementation is compared with, and what shows that a change of the structs has changed the wire. There is one
file for each message: its verb, who sends it, and two cases, one with all fields set and one with only what must be there. A case has the
message with its fields by name (octets in hex), and its frames in hex: the header, and the joined body where there is one.

Fields may be appended within a major version; then run this again and look at the difference: arrays may only have grown at their ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from tests.unit.samples import BARE, FULL

FOLDER = Path(__file__).parent

TABLES: Mapping[str, Mapping[int, type[m.Message]]] = {
    "worker to broker": m.FROM_WORKER,
    "broker to worker": m.TO_WORKER,
    "client to broker": m.FROM_CLIENT,
    "broker to client": m.TO_CLIENT,
    "broker to subscribers": m.EVENTS,
    "peer to broker (bulk)": m.BULK_TO_BROKER,
    "broker to peer (bulk)": m.BULK_FROM_BROKER,
}
"""Who may send what."""


def plain(value: Any) -> Any:
    """A message as JSON can hold it: fields by name, octets in hex."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def case(message: m.Message, bodies: list[bytes]) -> dict[str, Any]:
    """One message with its octets. An empty body is no frame."""
    frames = [frame.hex() for frame in codec.encode(message, bodies) if frame]
    return {"message": plain(message), "bodies": [body.hex() for body in bodies], "frames": frames}


def documents() -> dict[str, dict[str, Any]]:
    """The content of every file, by the message's name. A message without optional fields has the full case only."""
    made: dict[str, dict[str, Any]] = {}
    for message, bodies in FULL:
        kind = type(message)
        routes = [route for route, table in TABLES.items() if kind in table.values()]
        made[kind.__name__] = {
            "name": kind.__name__,
            "verb": f"0x{m.VERBS[kind]:02x}",
            "major": m.MAJOR,
            "sent": routes,
            "cases": {"full": case(message, bodies)},
        }
    for message, bodies in BARE:
        made[type(message).__name__]["cases"]["bare"] = case(message, bodies)
    return made


def text(document: dict[str, Any]) -> str:
    """A file as it is written."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all files, and remove those of messages that are no more."""
    made = documents()
    for path in FOLDER.glob("*.json"):
        if path.stem not in made:
            path.unlink()
    for name, document in made.items():
        (FOLDER / f"{name}.json").write_text(text(document), encoding="utf-8")


if __name__ == "__main__":
    main()
