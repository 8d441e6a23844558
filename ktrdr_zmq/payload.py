"""Job and result bodies: MessagePack with extension types for arrays and timestamps, limited in size. Never pickle.

The broker treats bodies as opaque octets; only clients and handlers come here. NumPy is imported only when an array is met.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any, Final

import msgpack

from ktrdr_zmq.errors import PayloadError

if TYPE_CHECKING:
    import numpy as np

EXT_ARRAY: Final = 1
EXT_DATETIME: Final = 2
MAX_BODY: Final = 4 * 1024 * 1024
MAX_INLINE_RESULT: Final = 256 * 1024
_DTYPES: Final = frozenset({
    "<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1", "|b1",
    "<M8[ns]", "<M8[us]", "<M8[ms]", "<M8[s]", "<m8[ns]",
})  # fmt: skip
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _pack_array(array: np.ndarray[Any, Any]) -> msgpack.ExtType:
    import numpy as np

    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in _DTYPES:
        raise PayloadError(f"An array of type {array.dtype} cannot be sent; use numbers, booleans or datetime64.")
    data = np.ascontiguousarray(array, dtype=dtype).tobytes()
    return msgpack.ExtType(EXT_ARRAY, msgpack.packb([dtype.str, list(array.shape), data]))


def _default(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            raise PayloadError(f"The time {value.isoformat()} has no time zone; give it one (UTC).")
        micros = (value - _EPOCH) // dt.timedelta(microseconds=1)
        return msgpack.ExtType(EXT_DATETIME, micros.to_bytes(8, "big", signed=True))
    kind = type(value).__module__.partition(".")[0]
    if kind == "numpy":
        import numpy as np

        if isinstance(value, np.ndarray):
            return _pack_array(value)
        if isinstance(value, np.generic) and not isinstance(value, (np.datetime64, np.timedelta64)):
            return value.item()
    raise PayloadError(f"A value of type {type(value).__name__} cannot be sent in a job or result body.")


def _unpack_array(data: bytes) -> Any:
    try:
        import numpy as np
    except ImportError:
        raise PayloadError("The body holds an array, and NumPy is not installed here.", hint="Install it with: pip install numpy") from None

    dtype, shape, raw = msgpack.unpackb(data)
    if dtype not in _DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise PayloadError("An array in the body has a type or shape that is not allowed.")
    if math.prod(shape) * np.dtype(dtype).itemsize != len(raw):
        raise PayloadError("An array in the body does not fit its shape.")
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


def _ext_hook(code: int, data: bytes) -> Any:
    if code == EXT_ARRAY:
        return _unpack_array(data)
    if code == EXT_DATETIME and len(data) == 8:
        return _EPOCH + dt.timedelta(microseconds=int.from_bytes(data, "big", signed=True))
    raise PayloadError(f"The body has an unknown extension type {code}.")


def pack(value: Any, *, limit: int = MAX_BODY) -> bytes:
    """Encode a body.

    Parameters
    ----------
    value : dict, list, str, bytes, number, bool, None, aware datetime or NumPy array, nested at will
    limit : int
        Greatest size in octets.

    Raises
    ------
    PayloadError
        For a type that has no encoding, an integer beyond 64 bits, or a body over the limit.
    """
    try:
        data: bytes = msgpack.packb(value, default=_default, use_bin_type=True)
    except (OverflowError, ValueError, RecursionError, TypeError) as error:
        raise PayloadError(f"The body cannot be encoded: {error}") from error
    if len(data) > limit:
        raise PayloadError(
            f"The body has {len(data):,} octets; the limit is {limit:,}.",
            hint="Put large data into an artifact and name it in the job.",
            code="TOO_LARGE",
        )
    return data


def unpack(data: bytes | memoryview, *, limit: int = MAX_BODY) -> Any:
    """Decode a body; arrays come back read-only, times as aware UTC datetimes.

    Raises
    ------
    PayloadError
        For octets that are no single MessagePack value, an unknown extension, or more than ``limit`` octets.
    """
    if len(data) > limit:
        raise PayloadError(f"The body has {len(data):,} octets; the limit is {limit:,}.", code="TOO_LARGE")
    try:
        return msgpack.unpackb(data, ext_hook=_ext_hook, raw=False, strict_map_key=False)
    except PayloadError:
        raise
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException, RecursionError) as error:
        raise PayloadError(f"The body is not valid MessagePack: {error}") from error
