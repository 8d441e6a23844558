"""What is known of a symbol by its name: when its day ends, how many trading days a year has, what trading it usually costs."""

from __future__ import annotations

from typing import Final, NamedTuple

CURRENCIES: Final = frozenset({
    "AED", "AUD", "BRL", "CAD", "CHF", "CNH", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF",
    "ILS", "INR", "JPY", "KRW", "MXN", "NOK", "NZD", "PLN", "RON", "SEK", "SGD", "THB", "TRY", "USD", "XAG", "XAU", "ZAR",
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


def bare(symbol: str) -> str:
    """A symbol without what only its source adds: ``EUR/USD``, ``eur_usd``, ``EURUSD=X`` and ``EURUSD.FX`` are one."""
    text = symbol.upper().removesuffix("=X").removesuffix(".FX")
    return "".join(letter for letter in text if letter.isalnum())


def classify(symbol: str) -> SymbolClass:
    """The class of a symbol: two currencies make a forex pair, a coin before a currency is crypto, everything else counts as a stock."""
    letters = bare(symbol)
    if len(letters) == 6 and letters[:3] in CURRENCIES and letters[3:] in CURRENCIES:
        return FOREX
    if any(letters.startswith(coin) and letters[len(coin) :] in (CURRENCIES | {"USDT", "USDC"}) for coin in COINS):
        return CRYPTO
    return STOCK
