"""Coins by the names that people and venues write: BTCUSDT, BTC-PERP, XBTUSD and BTC/USDT:USDT are all BTC.

Belongs here: reading a coin out of the name of a contract. Does not: what a venue calls its contracts
(sources/live/instruments.py), or which coins a venue lists (store/inputs/listings.py).
"""

from __future__ import annotations

import re
from typing import Final

QUOTES: Final = ("USDT", "USDC", "FDUSD", "USD")
"""The longer before what it ends with. Not BUSD and TUSD: BNBUSD and XBTUSD are far more common names."""
CONTRACT_WORDS: Final = frozenset({"PERP", "PERPETUAL", "SWAP", "FUTURES", "UMCBL", "CMCBL", "P"})
ALIASES: Final = {"XBT": "BTC", "XDG": "DOGE", "PF_XBT": "BTC"}
"""Kraken's and BitMEX's own names of coins."""
_KRAKEN_PREFIXES: Final = ("PF_", "PI_")


def coin_of(name: str) -> str:
    """The coin that a contract's name speaks of, in capitals; a name that is none is given back in capitals.

    Only what is certain is cut: a venue before a colon, words such as PERP and SWAP, and one quote currency. A coin
    that is called like a quote (USDT, USDC) stays itself, and so does a multiple such as 1000PEPE.
    """
    text = name.strip().upper()
    for prefix in _KRAKEN_PREFIXES:
        text = text.removeprefix(prefix)
    venue, colon, rest = text.partition(":")
    if colon and "/" not in venue and "-" not in venue:
        text = rest  # BINANCE:BTCUSDT.P; in ccxt's BTC/USDT:USDT the settlement follows the colon
    words = [word for word in re.split(r"[-_/:.\s]+", text) if word]
    while len(words) > 1 and words[-1] in CONTRACT_WORDS:
        words.pop()
    if not words:
        return text
    coin = words[0]
    if len(words) == 1:
        for word in ("PERP", "SWAP"):
            if coin.endswith(word) and coin != word:
                coin = coin.removesuffix(word)
        for quote in QUOTES:
            if coin.endswith(quote) and coin != quote:
                coin = coin.removesuffix(quote)
                break
    return ALIASES.get(coin, coin)
