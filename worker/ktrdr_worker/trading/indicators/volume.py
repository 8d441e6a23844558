"""Volume: what was traded, and on which side. On bars without volume all of these are errors."""

from __future__ import annotations

import numpy as np
import talib

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.indicators.common import moving_average, nothing, rolling_mean, shifted, steps, where_not
from ktrdr_worker.trading.indicators.define import Family, Prices, average, bars

family = Family("Volume")


@family("0", volume=True, unstable=True, talib=("OBV",), also=("on_balance_volume",))
def obv(x: Prices) -> Array:
    """On-balance volume (Granville): volumes of rising bars less those of falling ones, summed since the first bar."""
    return talib.OBV(x.close, x.volume)


@family("0", volume=True, unstable=True, talib=("AD",), also=("accumulation_distribution", "chaikin_line"))
def ad(x: Prices) -> Array:
    """Accumulation/distribution line (Chaikin): volume times the close's place in the bar, summed since the first bar."""
    return talib.AD(x.high, x.low, x.close, x.volume)


@family("slow - 1", volume=True, unstable=True, talib=("ADOSC",), ordered=(("fast", "slow"),), fast=bars(3), slow=bars(10))
def chaikin_oscillator(x: Prices, fast: int, slow: int) -> Array:
    """Chaikin oscillator: a fast less a slow EMA of the accumulation/distribution line."""
    return talib.ADOSC(x.high, x.low, x.close, x.volume, fastperiod=fast, slowperiod=slow)


@family("period - 1", volume=True, talib=("CMF",), also=("chaikin_money_flow",), period=bars(20))
def cmf(x: Prices, period: int) -> Array:
    """Chaikin money flow: volume times the close's place in the bar, over the volume, -1 to 1."""
    return where_not(nothing(x.volume, period), talib.CMF(x.high, x.low, x.close, x.volume, timeperiod=period))


@family("period", volume=True, talib=("MFI",), also=("money_flow_index",), period=bars(14))
def mfi(x: Prices, period: int) -> Array:
    """Money flow index: an RSI weighted with volume, 0 to 100."""
    flow = steps((x.high + x.low + x.close) / 3.0) * x.volume
    return where_not(nothing(flow, period), talib.MFI(x.high, x.low, x.close, x.volume, timeperiod=period))


@family("period", volume=True, unstable=True, talib=("EFI",), also=("elder_force_index",), period=bars(13))
def force_index(x: Prices, period: int) -> Array:
    """Force index (Elder): the EMA of the change of the close times the volume."""
    return talib.EFI(x.close, x.volume, timeperiod=period)


@family("0", volume=True, talib=("MARKETFI",), also=("bw_mfi",))
def market_facilitation(x: Prices) -> Array:
    """Market facilitation index (Williams): the range of the bar over its volume."""
    return (x.high - x.low) / x.volume


@family("period", volume=True, also=("emv",), period=bars(14))
def ease_of_movement(x: Prices, period: int) -> Array:
    """Ease of movement (Arms): the move of the bar's middle times its range over its volume, as a simple average."""
    return rolling_mean(steps((x.high + x.low) / 2.0) * (x.high - x.low) / x.volume, period)


@family("0", volume=True, unstable=True, talib=("NVI",), also=("negative_volume_index",))
def nvi(x: Prices) -> Array:
    """Negative volume index: returns of bars whose volume fell, compounded from 1000 at the first bar."""
    return talib.NVI(x.close, x.volume)


@family("0", volume=True, unstable=True, talib=("PVI",), also=("positive_volume_index",))
def pvi(x: Prices) -> Array:
    """Positive volume index: returns of bars whose volume rose, compounded from 1000 at the first bar."""
    return talib.PVI(x.close, x.volume)


@family("0", volume=True, unstable=True, talib=("PVT",), also=("price_volume_trend",))
def pvt(x: Prices) -> Array:
    """Price volume trend: returns times volume, summed since the first bar."""
    return talib.PVT(x.close, x.volume)


@family("0", unstable=True, talib=("WAD",), also=("williams_accumulation_distribution",))
def williams_ad(x: Prices) -> Array:
    """Williams' accumulation/distribution: distances of the close from the true low or high, summed since the first bar; no volume."""
    return talib.WAD(x.high, x.low, x.close)


@family(
    "lag(average, slow)", volume=True, talib=("PVO",), also=("volume_oscillator",), ordered=(("fast", "slow"),),
    fast=bars(12), slow=bars(26), average=average("ema"),
)  # fmt: skip
def pvo(x: Prices, fast: int, slow: int, average: str) -> Array:
    """Percentage volume oscillator: a fast average of the volume over a slow one, less one, in percent."""
    return 100.0 * (moving_average(x.volume, average, fast) / moving_average(x.volume, average, slow) - 1.0)


@family("period", volume=True, talib=("RVOL",), period=bars(20))
def relative_volume(x: Prices, period: int) -> Array:
    """The volume over the simple average of the bars before it."""
    return x.volume / shifted(rolling_mean(x.volume, period), 1)


@family("period", volume=True, also=("amihud_illiquidity",), period=bars(20))
def amihud(x: Prices, period: int) -> Array:
    """Illiquidity (Amihud 2002): the simple average of the size of a bar's return over the money traded, close times volume."""
    return rolling_mean(np.abs(x.close / shifted(x.close, 1) - 1.0) / (x.close * x.volume), period)
