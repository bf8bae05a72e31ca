"""The shipped label list, and what a transfer is under it."""

from __future__ import annotations

import re

import pytest

from liq_pipeline.domain.chains import CHAINS
from liq_pipeline.domain.tron_address import is_tron_address
from liq_pipeline.domain.wallets import ZERO_ADDRESS, direction, shipped_labels

A, B, C = ("0x" + digit * 40 for digit in "abc")
ENTITIES = {A: "kraken", B: "kraken", C: "okx"}
USER = "0x" + "1" * 40


@pytest.mark.parametrize(
    ("sender", "receiver", "expected"),
    [
        (USER, A, "inflow"),
        (A, USER, "outflow"),
        (A, B, "internal"),
        (A, C, "inter_exchange"),
        (USER, USER, "other"),
        (ZERO_ADDRESS, A, "mint"),
        (A, ZERO_ADDRESS, "burn"),
    ],
)
def test_direction(sender: str, receiver: str, expected: str) -> None:
    assert direction(sender, receiver, ENTITIES) == expected


def test_the_shipped_list_is_clean() -> None:
    labels = shipped_labels()
    assert len(labels) > 300
    assert len({(label.chain, label.address) for label in labels}) == len(labels)
    for label in labels:
        assert label.chain in CHAINS
        is_right = is_tron_address if label.chain == "tron" else re.compile(r"0x[0-9a-f]{40}").fullmatch
        assert is_right(label.address)
        assert re.fullmatch(r"[a-z0-9_]+", label.entity)
        assert label.role in {"hot", "cold", "deposit", "custody", "wallet", "treasury"}
    # Invented wallets belong to invented exchanges, and only they do.
    assert all((label.source == "simulation") == label.entity.startswith("sim_") for label in labels)
