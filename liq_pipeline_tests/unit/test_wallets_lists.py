"""Wallet labels: what ships, what a transfer between two of them is, and what exchanges publish themselves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from liq_pipeline.domain.wallets import WalletLabel, direction_between, parse_labels, shipped_labels
from liq_pipeline.sources.chain.wallet_lists import LabelList, binance_labels, bybit_labels
from liq_pipeline.sources.chain.wallet_review import compare, read_list

GOOD, BAD = "0x" + "ab" * 20, "0x" + "zz" * 20
TRON = "TLaGjwhvA8XQYSxFAcAXy7Dvuue9eGYitv"


def test_the_shipped_list_is_clean() -> None:
    labels = shipped_labels()
    addresses = [label.address for label in labels if label.chain == "ethereum"]
    assert len(addresses) == len(set(addresses)) > 300
    assert all(a == a.lower() and len(a) == 42 and a.startswith("0x") for a in addresses)
    assert {label.source for label in labels} == {"etherscan-labels", "public-lists", "simulation"}
    entities = {label.entity for label in labels}
    assert {"binance", "bybit", "okx", "kraken", "coinbase", "htx", "binance_custody"} <= entities


def test_tokens_that_stand_behind_others_are_no_users_deposit() -> None:
    assert direction_between(None, "binance_custody", is_mint=False, is_burn=False) == "internal"
    assert direction_between("binance_custody", None, is_mint=False, is_burn=False) == "internal"
    assert direction_between(None, "binance", is_mint=False, is_burn=False) == "inflow"


def test_a_label_holds_between_its_dates() -> None:
    text = f"chain,address,entity,role,source,valid_from,valid_to\nethereum,{GOOD},x,hot,t,,2022-11-12T00:00:00Z\n"
    labels = LabelList("v", parse_labels(text))
    assert labels.entities_at(datetime(2022, 11, 11, tzinfo=UTC)) == {GOOD: "x"}
    assert labels.entities_at(datetime(2022, 11, 12, tzinfo=UTC)) == {}


def test_a_broken_line_is_named() -> None:
    with pytest.raises(ValueError, match="line 3 of the label list"):
        parse_labels(f"chain,address,entity,role,source\nethereum,{GOOD},x,hot,t\nethereum,{GOOD}\n")


def test_bybits_file_with_several_addresses_and_broken_hexadecimal() -> None:
    labels, malformed = bybit_labels(
        f"Coin,Height,Amount,Address\nUSDT,1,5,{GOOD.upper().replace('0X', '0x')}; {BAD}\nBTC,1,2,bc1qxyz\n"
    )
    assert [(label.address, label.entity) for label in labels] == [(GOOD, "bybit")]
    assert malformed == [BAD]


def test_binances_answer_whatever_its_nesting() -> None:
    payload = {
        "data": {
            "coins": [
                {"coin": "USDT", "list": [{"network": "ETH", "address": GOOD}, {"network": "TRX", "address": "T1"}]}
            ]
        }
    }
    labels, malformed = binance_labels(payload)
    assert [(label.address, label.entity) for label in labels] == [(GOOD, "binance")]
    assert malformed == []


def test_lists_are_held_against_each_other() -> None:
    ours = [
        WalletLabel(chain="tron", address=TRON, entity="okx", role="hot", source="t"),
        WalletLabel(chain="bsc", address=GOOD, entity="binance", role="hot", source="t"),
    ]
    text = (
        f"exchange,chain,address\nokex,tron,{TRON}\ngate-io,bsc,{GOOD.upper().replace('0X', '0x')}\n"
        f"htx,tron,{TRON[:-1]}x\nkraken,ethereum,{GOOD}\nkraken,solana,whatever\n"
    )
    found = compare(ours, read_list(text))
    assert [(one.kind, one.chain, one.ours, one.theirs) for one in found] == [
        ("agrees", "tron", "okx", "okx"),
        ("differs", "bsc", "binance", "gate"),
        ("malformed", "tron", None, "htx"),
        ("unknown", "ethereum", None, "kraken"),
    ]
    with pytest.raises(ValueError, match="chain, address"):
        read_list("name,wallet\nx,y\n")


def test_the_exchanges_files_are_read_for_every_chain() -> None:
    labels, malformed = bybit_labels(
        f"Coin,Height,Amount,Address,Chain\nUSDT,1,5,{TRON},TRX\nUSDT,1,5,{GOOD},BSC\nUSDT,1,5,{GOOD},ARBI\n"
        f"USDT,1,5,{TRON[:-1]}x,TRX\nBTC,1,2,bc1qxyz,BTC\n"
    )
    assert {(label.chain, label.address) for label in labels} == {("tron", TRON), ("bsc", GOOD), ("arbitrum", GOOD)}
    assert malformed == [TRON[:-1] + "x"]
    payload = {"data": [{"network": "TRX", "address": TRON}, {"network": "AVAXC", "address": GOOD}]}
    labels, malformed = binance_labels(payload)
    assert {(label.chain, label.entity) for label in labels} == {("tron", "binance"), ("avalanche", "binance")}
    assert malformed == []


def test_what_an_issuer_pays_out_and_takes_back_is_supply_and_no_flow() -> None:
    assert direction_between("tether_treasury", "binance", is_mint=False, is_burn=False) == "mint"
    assert direction_between(None, "tether_treasury", is_mint=False, is_burn=False) == "burn"
    assert direction_between("tether_treasury", "tether_treasury", is_mint=False, is_burn=False) == "internal"
