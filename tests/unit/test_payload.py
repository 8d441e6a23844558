"""Bodies: what can be sent comes back the same, what cannot be sent says so before it is."""

from __future__ import annotations

import datetime as dt
import math
import sys
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr_zmq.errors import EXIT_USAGE, PayloadError
from ktrdr_zmq.payload import EXT_ARRAY, EXT_DATETIME, MAX_BODY, MAX_INLINE_RESULT, pack, unpack

UTC = dt.UTC
NEW_YORK_SUMMER = dt.timezone(dt.timedelta(hours=-4))

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.just(UTC))
)
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4), max_leaves=20
)
BODIES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), NESTED, max_size=6)


@settings(deadline=None, max_examples=200)
@given(body=BODIES)
def test_what_is_packed_is_unpacked(body: dict[str, Any]) -> None:
    assert unpack(pack(body)) == body


# ---------------------------------------------------------------- the octets, as docs/protocol.md gives them


def test_the_octets_of_a_time() -> None:
    data = pack(dt.datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC))
    assert data == b"\xd7\x02" + (1_500_000).to_bytes(8, "big")
    assert unpack(b"\xd7\x02" + (-1).to_bytes(8, "big", signed=True)) == dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.mark.science
def test_the_octets_of_an_array() -> None:
    import numpy as np

    inner = msgpack.packb(["<f8", [1, 2], b"\0\0\0\0\0\0\xf0\x3f" + b"\0\0\0\0\0\0\0\x40"])
    assert pack(np.array([[1.0, 2.0]])) == msgpack.packb(msgpack.ExtType(EXT_ARRAY, inner))


def test_tuples_become_lists_and_octets_stay_octets() -> None:
    body = {"a": (1, (2, 3)), "b": b"\x00\xff", "c": "\u20ac", 7: None}
    assert unpack(pack(body)) == {**body, "a": [1, [2, 3]]}


# ---------------------------------------------------------------- times


@pytest.mark.parametrize(
    "moment",
    [
        dt.datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
        dt.datetime(1, 1, 1, tzinfo=UTC),
        dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        dt.datetime(2024, 7, 1, 12, tzinfo=NEW_YORK_SUMMER),
    ],
)
def test_times_keep_their_microsecond_and_come_back_in_utc(moment: dt.datetime) -> None:
    back = unpack(pack([moment]))[0]
    assert back == moment
    assert back.tzinfo is UTC


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(PayloadError, match="no time zone"):
        pack({"start": dt.datetime(2024, 1, 1)})  # noqa: DTZ001  # what this is about


def test_a_time_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(PayloadError):
        unpack(b"\xd7\x02" + (2**62).to_bytes(8, "big"))


# ---------------------------------------------------------------- arrays

DTYPES = [
    "<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1", "|b1",
    "<M8[ns]", "<M8[us]", "<M8[ms]", "<M8[s]", "<m8[ns]",
]  # fmt: skip


@pytest.mark.science
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (1, 2, 2, 2)])
def test_arrays_keep_type_shape_and_values(dtype: str, shape: tuple[int, ...]) -> None:
    import numpy as np

    array = np.arange(math.prod(shape)).astype("<i8").astype(dtype).reshape(shape)
    back = unpack(pack({"a": array}))["a"]
    assert back.dtype == np.dtype(dtype)
    assert back.shape == shape
    assert np.array_equal(back, array)
    assert not back.flags.writeable, "it looks into the message's own octets"


@pytest.mark.science
def test_arrays_of_any_layout_and_byte_order_arrive_as_one() -> None:
    import numpy as np

    plain = np.arange(12, dtype="<f8").reshape(3, 4)
    for array in (plain.astype(">f8"), np.asfortranarray(plain), plain[::-1][::-1], np.repeat(plain, 2, axis=1)[:, ::2]):
        assert np.array_equal(unpack(pack(array)), plain)
        assert unpack(pack(array)).dtype == np.dtype("<f8")
    assert np.array_equal(unpack(pack(plain.T)), plain.T)


@pytest.mark.science
def test_not_a_number_and_infinity_survive_in_arrays() -> None:
    import numpy as np

    back = unpack(pack(np.array([np.nan, np.inf, -np.inf, -0.0])))
    assert np.isnan(back[0])
    assert back[1:].tolist() == [math.inf, -math.inf, 0.0]
    assert math.copysign(1, back[3]) == -1


@pytest.mark.science
def test_numbers_of_numpy_become_plain_numbers() -> None:
    import numpy as np

    assert unpack(pack([np.float64(1.5), np.float32(0.5), np.int64(-3), np.uint8(7), np.bool_(True)])) == [1.5, 0.5, -3, 7, True]


@pytest.mark.science
def test_arrays_that_cannot_be_sent() -> None:
    import numpy as np

    for array in (np.array(["text"]), np.array([object()]), np.array([1 + 2j]), np.zeros(2, dtype=[("a", "<f8")])):
        with pytest.raises(PayloadError):
            pack(array)
    with pytest.raises(PayloadError):
        pack(np.datetime64("2024-01-01"))


def array_ext(dtype: Any, shape: Any, data: Any) -> bytes:
    return bytes(msgpack.packb(msgpack.ExtType(EXT_ARRAY, msgpack.packb([dtype, shape, data]))))


@pytest.mark.science
@pytest.mark.parametrize(
    "octets",
    [
        array_ext("|O", [1], b"\0" * 8),
        array_ext("<f8", [-1], b""),
        array_ext("<f8", [2], b"\0" * 8),
        array_ext("<f8", [1], b"\0" * 9),
        array_ext("<f8", [2**40, 2**40], b""),
        array_ext("<f8", ["1"], b"\0" * 8),
        array_ext("<f8", 1, b"\0" * 8),
        array_ext(["<f8"], [1], b"\0" * 8),
        array_ext("<f8", [1], "text-txt"),
        msgpack.packb(msgpack.ExtType(EXT_ARRAY, b"\xc1")),
        msgpack.packb(msgpack.ExtType(EXT_ARRAY, msgpack.packb([1, 2]))),
        msgpack.packb(msgpack.ExtType(EXT_ARRAY, msgpack.packb(None))),
    ],
)
def test_a_forged_array_is_refused(octets: bytes) -> None:
    with pytest.raises(PayloadError):
        unpack(octets)


@pytest.mark.science
@settings(deadline=None, max_examples=200)
@given(dtype=st.sampled_from(DTYPES), shape=st.lists(st.integers(0, 4), max_size=3), data=st.binary(max_size=64))
def test_whatever_an_array_claims_it_is_right_or_refused(dtype: str, shape: list[int], data: bytes) -> None:
    import numpy as np

    fits = math.prod(shape) * np.dtype(dtype).itemsize == len(data)
    if fits:
        assert unpack(array_ext(dtype, shape, data)).shape == tuple(shape)
    else:
        with pytest.raises(PayloadError):
            unpack(array_ext(dtype, shape, data))


# ---------------------------------------------------------------- what cannot be sent


@pytest.mark.parametrize("value", [object(), {1, 2}, Decimal("1.5"), dt.date(2024, 1, 1), dt.timedelta(1), 1j, print, range(3)])
def test_a_value_without_an_encoding_is_named(value: Any) -> None:
    with pytest.raises(PayloadError, match=type(value).__name__) as refusal:
        pack({"x": [value]})
    assert refusal.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_an_integer_beyond_64_bits_is_refused(number: int) -> None:
    with pytest.raises(PayloadError):
        pack({"n": number})


def test_something_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PayloadError):
        pack(endless)


def test_text_that_is_half_a_character_is_refused() -> None:
    with pytest.raises(PayloadError):
        pack({"t": "\ud800"})


def test_a_body_over_the_limit_is_refused_with_a_way_out() -> None:
    assert pack(b"x" * 95, limit=97) == b"\xc4\x5f" + b"x" * 95
    with pytest.raises(PayloadError, match="limit") as refusal:
        pack(b"x" * 95, limit=96)
    assert refusal.value.code == "TOO_LARGE"
    assert "artifact" in refusal.value.hint


def test_a_result_that_fits_is_smaller_than_a_body() -> None:
    assert MAX_INLINE_RESULT < 1 << 20 < MAX_BODY


# ---------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    "octets", [b"", b"\xc1", b"\x81", b"\x92\x01", b"\x01\x02", b"\xa1\xff", b"\xdb\xff\xff\xff\xff", b"\x91" * 100_000 + b"\xc0"]
)
def test_octets_that_are_no_single_value(octets: bytes) -> None:
    with pytest.raises(PayloadError) as refusal:
        unpack(octets)
    assert refusal.value.code == "BAD_PAYLOAD"


@pytest.mark.parametrize("code", [0, 3, 127, -2])
def test_an_extension_that_nobody_knows(code: int) -> None:
    with pytest.raises(PayloadError, match=str(code)):
        unpack(b"\xd4" + code.to_bytes(1, "big", signed=True) + b"x")


@pytest.mark.parametrize("octets", [b"", b"\0" * 7, b"\0" * 9])
def test_a_time_of_another_length(octets: bytes) -> None:
    with pytest.raises(PayloadError):
        unpack(msgpack.packb(msgpack.ExtType(EXT_DATETIME, octets)))


def test_what_is_too_long_is_not_even_looked_at() -> None:
    with pytest.raises(PayloadError) as refusal:
        unpack(b"\xc1" * 11, limit=10)
    assert refusal.value.code == "TOO_LARGE"


@settings(deadline=None, max_examples=300)
@given(octets=st.binary(max_size=80))
def test_no_octets_raise_anything_but_a_payload_error(octets: bytes) -> None:
    try:
        unpack(octets)
    except PayloadError as refusal:
        seen = refusal.code
    else:
        seen = "BAD_PAYLOAD"
    assert seen == "BAD_PAYLOAD"


def test_plain_bodies_need_no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's environment does not have it."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    body = {"a": [1, 2.5, "x", None, b"y", dt.datetime(2024, 1, 1, tzinfo=UTC)]}
    assert unpack(pack(body)) == body
