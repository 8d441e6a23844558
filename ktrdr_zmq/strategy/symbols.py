"""What is known of a symbol by its name: when its day ends, how many trading days a year has, what trading it usually costs."""

from __future__ import annotations

from typing import Final, NamedTuple

CURRENCIES: Final = frozenset({
    "AUD", "CAD", "CHF", "CNH", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "JPY", "MXN", "NOK", "NZD", "PLN", "SEK", "SGD", "TRY",
    "USD", "ZAR",
})  # fmt: skip
COINS: Final = frozenset({"ADA", "BNB", "BTC", "DOGE", "DOT", "ETH", "LTC", "SOL", "XRP"})


class SymbolClass(NamedTuple):
    """A class of symbols.

    Attributes
    ----------
    name : str
        ``forex``, ``crypto`` or ``stock``.
    session_zone : str
        Time zone (IANA) in which its day is counted.
    session_start_hour : int
        Hour of that zone at which the day begins; 17 is the evening before.
    continuous : bool
        Whether a day has bars from its beginning to its end, so that an incomplete first or last day can be told.
    periods_per_year : int
        Sessions a year, for annual figures.
    commission_bps, slippage_bps : float
        Usual costs of a leg in basis points, where nobody says otherwise.
    """

    name: str
    session_zone: str
    session_start_hour: int
    continuous: bool
    periods_per_year: int
    commission_bps: float
    slippage_bps: float


FOREX: Final = SymbolClass("forex", "America/New_York", 17, True, 252, 0.5, 0.5)
CRYPTO: Final = SymbolClass("crypto", "UTC", 0, True, 365, 10.0, 5.0)
STOCK: Final = SymbolClass("stock", "America/New_York", 0, False, 252, 5.0, 5.0)


def classify(symbol: str) -> SymbolClass:
    """The class of a symbol: two currencies make a forex pair, a coin before a currency is crypto, everything else counts as a stock."""
    bare = symbol.upper().replace("/", "").replace("-", "").replace("_", "")
    if len(bare) == 6 and bare[:3] in CURRENCIES and bare[3:] in CURRENCIES:
        return FOREX
    if any(bare.startswith(coin) and bare[len(coin) :] in (CURRENCIES | {"USDT", "USDC"}) for coin in COINS):
        return CRYPTO
    return STOCK
