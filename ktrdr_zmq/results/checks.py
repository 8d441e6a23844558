"""What the checks of a model return: does it look ahead, and how much history do its decisions need."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from ktrdr_zmq.results.document import DataUsed, Document


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A value that changes when later bars are taken away.

    ``step`` is where on the way from bars to fills: ``bar``, ``feature``, ``output`` (of the network), ``decision`` or ``fill``. ``first``
    is the open of the first bar where it changes, ``cut_after`` that of the last bar that was left; ``whole`` and ``part`` are the value
    there with all bars and with those, None where it is none, and ``size`` their difference. ``cuts`` counts the cuts that change it.
    """

    step: str
    name: str
    first: str
    cut_after: str
    whole: float | None
    part: float | None
    size: float | None
    cuts: int


class LookaheadResult(Document, frozen=True, kw_only=True):
    """What a look-ahead check returns: a model over all bars, and again over the bars up to each of ``cuts`` bars.

    ``clean`` is true where nothing up to a cut depends on what comes after it. ``changes`` has an entry for each value that does, the
    first bar and the earliest step first: that one is the cause. ``bars`` is the number of bars that could have been cut after.
    """

    KIND: ClassVar[str] = "check-lookahead"

    strategy_name: str
    symbol: str
    timeframe: str
    timeframes: list[str]
    data: DataUsed
    model_digest: str
    clean: bool
    cuts: int
    bars: int
    seed: int
    changes: list[Change]
    device: str
    threads: int
    duration_s: float
    fingerprint: dict[str, str]
    conventions: dict[str, Any]
    warnings: list[str]
    digest: str


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What so much history changes against all that there is.

    ``bars`` before a bar are ``multiple`` times the warm-up; ``changed`` of ``samples`` decisions differ, ``share`` is their share, None
    without samples. ``largest_feature`` is the largest difference of a feature as the network reads it, ``feature`` its name (empty:
    none differs), ``largest_output`` that of an output of the network.
    """

    multiple: float
    bars: int
    samples: int
    changed: int
    share: float | None
    feature: str
    largest_feature: float
    largest_output: float


class WarmupResult(Document, frozen=True, kw_only=True):
    """What a warm-up check returns: how decisions at a sample of bars change with the history before them.

    ``warmup_bars`` is what the indicators and the network's window need for a first value, ``history_required`` what the strategy asks for.
    ``recommended`` is the shortest history tried from which on nothing changes that matters (see ``conventions``), None if there is none;
    ``enough`` says whether the strategy asks for as much.
    """

    KIND: ClassVar[str] = "check-warmup"

    strategy_name: str
    symbol: str
    timeframe: str
    timeframes: list[str]
    data: DataUsed
    model_digest: str
    warmup_bars: int
    history_required: int
    lengths: list[History]
    recommended: int | None
    enough: bool | None
    seed: int
    device: str
    threads: int
    duration_s: float
    fingerprint: dict[str, str]
    conventions: dict[str, Any]
    warnings: list[str]
    digest: str
