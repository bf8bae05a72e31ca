"""Tron's addresses: the two forms of known contracts, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.domain.tron_address import TRON_ZERO_ADDRESS, base58_of, hex_of, is_tron_address

USDT = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
USDT_HEX = "a614f803b6fd780986a42c78ec9c7f77e6ded13c"


def test_the_contract_of_usdt_in_both_forms() -> None:
    assert hex_of(USDT) == "0x" + USDT_HEX
    assert base58_of("0x" + USDT_HEX) == base58_of(USDT_HEX) == base58_of("41" + USDT_HEX) == USDT
    assert base58_of("0x" + "0" * 40) == TRON_ZERO_ADDRESS


@given(st.binary(min_size=20, max_size=20))
def test_the_way_there_and_back(raw: bytes) -> None:
    address = base58_of(raw.hex())
    assert address.startswith("T")
    assert hex_of(address) == "0x" + raw.hex()


@pytest.mark.parametrize(
    "wrong", [USDT[:-1] + "u", USDT[:-1], "0x" + USDT_HEX, "", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"]
)
def test_a_mistyped_address_is_found_out(wrong: str) -> None:
    assert not is_tron_address(wrong)


@pytest.mark.parametrize("wrong", ["42" + USDT_HEX, USDT_HEX[:-2], "zz"])
def test_other_bytes_are_no_address(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"Tron|hexadecimal"):
        base58_of(wrong)
