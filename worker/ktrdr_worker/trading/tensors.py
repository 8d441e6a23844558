"""Tensors and a JSON description in one file: safetensors with the description in its header. Never pickled; read strictly."""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ktrdr_zmq.errors import NewerSchema, UsageError

KEY: Final = "ktrdr"
MAX_HEADER: Final = 16 << 20


class FileError(UsageError):
    """The file is not what it should be."""

    code = "TENSORS"


def dump(tensors: dict[str, torch.Tensor], description: dict[str, Any]) -> bytes:
    """Write a file; the same tensors and description give the same octets, on whatever device they were."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    octets: bytes = save_tensors(plain, metadata={KEY: json.dumps(description, sort_keys=True, separators=(",", ":"))})
    return octets


def describe(octets: bytes, kind: str, schema: int) -> dict[str, Any]:
    """Read the description alone.

    Raises
    ------
    FileError
        When it is no file of this kind, or damaged.
    NewerSchema
        When a newer release wrote it.
    """
    try:
        size = struct.unpack("<Q", octets[:8])[0]
        if size > min(MAX_HEADER, len(octets) - 8):
            raise ValueError("header")
        plain = json.loads(json.loads(octets[8 : 8 + size])["__metadata__"][KEY])
        found, written = plain["kind"], plain["schema"]
    except (struct.error, ValueError, KeyError, TypeError, RecursionError):
        raise FileError(f"This is no {kind} of ktrdr-zmq, or it is damaged.") from None
    if found != kind:
        raise FileError(f"This is no {kind}, but a {found}.")
    if not isinstance(written, int) or written > schema:
        raise NewerSchema(f"The {kind} has schema {written}; this release reads up to schema {schema}.")
    return dict(plain)


def load(octets: bytes, kind: str, schema: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read description and tensors; errors as for `describe`."""
    description = describe(octets, kind, schema)
    try:
        return description, load_tensors(octets)
    except SafetensorError as error:
        raise FileError(f"The {kind} is damaged: {error}") from None
