"""What is known of a symbol by its name: when its day ends, how many trading days a year has, what trading it usually costs."""

from __future__ import annotations

from typing import Final, NamedTuple

CURRENCIES: Final = frozenset({
    "AED", "AUD", "BRL", "CAD", "CHF", "CNH", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF",
    "ILS", "INR", "JPY", "KRW", "MXN", "NOK", "NZD", "PLN", "RON", "SEK", "SGD", "THB", "TRY", "USD", "XAG", "XAU", "ZAR",
})  # fmt: skip
STABLECOINS: Final = ("USDT", "USDC")
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
    days_a_week : int
        From Monday on: the last of them ends a week.
    regular : tuple of int, optional
        Minutes of the day at which regular trading begins and ends; None where a session is traded from its beginning to its end.
    periods_per_year : int
        Sessions a year, for annual figures.
    commission_bps, slippage_bps : float
        Usual costs of a leg in basis points, where nobody says otherwise.
    """

    name: str
    session_zone: str
    session_start_hour: int
    days_a_week: int
    regular: tuple[int, int] | None
    periods_per_year: int
    commission_bps: float
    slippage_bps: float


FOREX: Final = SymbolClass("forex", "America/New_York", 17, 5, None, 252, 0.5, 0.5)
CRYPTO: Final = SymbolClass("crypto", "UTC", 0, 7, None, 365, 10.0, 5.0)
STOCK: Final = SymbolClass("stock", "America/New_York", 0, 5, (570, 960), 252, 5.0, 5.0)


def bare(symbol: str) -> str:
    """A symbol without what only its source adds: ``EUR/USD``, ``eur_usd``, ``EURUSD=X`` and ``EURUSD.FX`` are one."""
    text = symbol.upper().removesuffix("=X").removesuffix(".FX")
    return "".join(letter for letter in text if letter.isalnum())


def classify(symbol: str) -> SymbolClass:
    """The class of a symbol: two currencies make a forex pair, what is quoted in a stablecoin or has a coin before a currency is crypto,
    everything else counts as a stock.
    """
    letters = bare(symbol)
    if len(letters) == 6 and letters[:3] in CURRENCIES and letters[3:] in CURRENCIES:
        return FOREX
    if len(letters) > 4 and letters.endswith(STABLECOINS):
        return CRYPTO
    if any(letters.startswith(coin) and letters[len(coin) :] in CURRENCIES for coin in COINS):
        return CRYPTO
    return STOCK
