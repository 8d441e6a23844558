"""Cycles, by Ehlers' Hilbert transform."""

from __future__ import annotations

import talib

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.indicators.define import Family, Prices

family = Family("Cycles")


@family("32", sourced=True, unstable=True, talib=("HT_DCPERIOD",))
def ht_dcperiod(x: Prices) -> Array:
    """The period of the dominant cycle, in bars."""
    return talib.HT_DCPERIOD(x.source)


@family("63", sourced=True, unstable=True, talib=("HT_DCPHASE",))
def ht_dcphase(x: Prices) -> Array:
    """The phase of the dominant cycle, in degrees."""
    return talib.HT_DCPHASE(x.source)


@family("32", outputs=("in_phase", "quadrature"), sourced=True, unstable=True, talib=("HT_PHASOR",))
def ht_phasor(x: Prices) -> tuple[Array, ...]:
    """The two parts of the dominant cycle's phasor."""
    in_phase, quadrature = talib.HT_PHASOR(x.source)
    return in_phase, quadrature


@family("63", outputs=("sine", "lead_sine"), sourced=True, unstable=True, talib=("HT_SINE",))
def ht_sine(x: Prices) -> tuple[Array, ...]:
    """The sine of the dominant cycle's phase, and that of 45 degrees further."""
    sine, lead = talib.HT_SINE(x.source)
    return sine, lead


@family("63", sourced=True, unstable=True, talib=("HT_TRENDMODE",))
def ht_trendmode(x: Prices) -> Array:
    """1 in a trend, 0 in a cycle."""
    return talib.HT_TRENDMODE(x.source)
