"""Tron's addresses: base58check, as people write them, and hexadecimal, as nodes do.

Belongs here: the two forms and the way between them. Does not: contracts or wallets (chains.py, wallets.py).

An address is 21 bytes, 0x41 and the 20 that Ethereum's have. Base58check adds the first four bytes of a double SHA-256,
so that a mistyped address is found out. JSON-RPC and TronGrid's events leave the 0x41 away.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import base58

TRON_ZERO_ADDRESS: Final = "T9yD14Nj9j7xAB4dbGeiX9h8unkKHxuWwb"
_PREFIX: Final = b"\x41"
_REMEMBERED: Final = 1 << 17
"""Addresses: a few tens of megabytes at most; exchanges' wallets come again and again."""


@lru_cache(maxsize=_REMEMBERED)
def base58_of(hexadecimal: str) -> str:
    """T... of an address in hexadecimal: 20 bytes, or 21 with Tron's 41 before them; 0x before it or not. Raises
    ValueError for anything else."""
    raw = bytes.fromhex(hexadecimal.removeprefix("0x"))
    if len(raw) == 20:
        raw = _PREFIX + raw
    if len(raw) != 21 or raw[:1] != _PREFIX:
        raise ValueError(f"{hexadecimal!r} is no address of Tron")
    return base58.b58encode_check(raw).decode()


def hex_of(address: str) -> str:
    """0x and 20 bytes in hexadecimal, of an address T... . Raises ValueError if a letter is wrong."""
    raw = base58.b58decode_check(address)
    if len(raw) != 21 or raw[:1] != _PREFIX:
        raise ValueError(f"{address!r} is no address of Tron")
    return "0x" + raw[1:].hex()


def is_tron_address(address: str) -> bool:
    """Whether it is an address T... whose checksum holds."""
    try:
        hex_of(address)
    except ValueError:
        return False
    return True
