"""Bytes to messages: what is believed, and the reason given for what is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liq_pipeline.bus.codec import DecodeError, decode, encode, headers_of
from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.domain.records import Record, Watermark
from liq_pipeline_tests.landing_support import SAMPLES, T0, heartbeat, price, raw, stablecoin_flow


def reason(topic: str, value: bytes | None, headers: Any = (), appended_at: Any = None) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(topic, value, headers, appended_at)
    assert str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("topic", IN_TOPICS)
def test_what_is_encoded_comes_back_equal(topic: str) -> None:
    record = SAMPLES[topic](7)
    assert decode(topic, encode(record), headers_of(record), None) == record


def test_control_messages_are_told_by_their_header() -> None:
    beat = heartbeat(3)
    assert decode("liquidations", encode(beat), headers_of(beat), None) == beat
    mark = Watermark(schema_version=1, world="recorded/x", watermark=T0)
    for topic in IN_TOPICS:
        assert decode(topic, encode(mark), headers_of(mark), None) == mark


def test_headers_of_other_programs_do_not_matter() -> None:
    record = price()
    assert decode("prices", encode(record), [("traceparent", b"\xff\x00"), ("x", None)], None) == record


def test_token_amounts_travel_as_exact_decimal_strings() -> None:
    flow = stablecoin_flow()
    assert msgspec.json.decode(encode(flow))["amount"] == "1234567.000001"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "empty_value"),
        (b"", "empty_value"),
        (b"garbage", "not_json"),
        (encode(price())[:-20], "not_json"),
        (b"\xff\xfe\x00", "not_json"),
        (encode(price()).replace(b"90000.5", b"NaN"), "not_json"),
        (encode(price()).replace(b"90000.5", b"Infinity"), "not_json"),
        (b'{"deep":' + b"[" * 60_000, "not_json"),
        (encode(price())[:-1] + b',"unknown":"\xff"}', "not_json"),
        (b"[]", "invalid_field"),
        (b"null", "invalid_field"),
        (encode(price()).replace(b"90000.5", b"1e400"), "impossible_number"),
        (encode(price()).replace(b"90000.5", b"9" * 5000), "impossible_number"),
        (raw(price(), price_usd=-1.0), "impossible_number"),
        (raw(price(), price_usd=0.0), "impossible_number"),
        (raw(price(), price_usd="90000"), "invalid_field"),
        (raw(price(), price_usd=None), "missing_field"),
        (raw(price(), schema_version=2), "unknown_version"),
        (raw(price(), schema_version=2, price_usd=None), "unknown_version"),
        (raw(price(), schema_version="1"), "unknown_version"),
        (raw(price(), schema_version=None), "missing_field"),
        (raw(price(), event_time="2026-01-05T12:00:00"), "invalid_field"),
        (raw(price(), event_time=1_767_614_400), "invalid_field"),
        (raw(price(), symbol="BTC\n"), "invalid_field"),
        (raw(price(), venue="a\x00b"), "invalid_field"),
        (raw(price(), world="simulated/1"), "world_mismatch"),
        (raw(price(), event_time="2031-01-05T12:00:00Z"), "future_event"),
        (raw(price(), event_time="1970-01-01T00:00:00Z"), "impossible_time"),
        (raw(price(), received_at="9999-12-31T23:59:59Z"), "impossible_time"),
        (raw(price(), origin="archive"), "known_at_missing"),
    ],
)
def test_each_impossible_price_has_its_reason(value: bytes | None, code: str) -> None:
    assert reason("prices", value) == code


@pytest.mark.parametrize(
    ("topic", "changes", "code"),
    [
        ("funding_rates", {"rate": 0.25}, "wrong_unit"),
        ("open_interest", {"open_interest_usd": 1000.0}, "wrong_unit"),
        ("long_short_ratio", {"ratio": 0.6}, "wrong_unit"),
        ("liquidations", {"notional_usd": 178.0}, "wrong_unit"),
        ("liquidations", {"event_id": "a\x00"}, "invalid_field"),
        ("liquidations", {"liquidated_side": "SELL"}, "invalid_field"),
        ("stablecoin_flows", {"amount": "1234567000001000000"}, "wrong_unit"),
        ("stablecoin_flows", {"amount": "NaN"}, "impossible_number"),
        ("stablecoin_flows", {"amount": "1E-400"}, "impossible_number"),
        ("stablecoin_flows", {"log_index": 2**31}, "impossible_number"),
        ("stablecoin_flows", {"block_number": 10**30}, "impossible_number"),
    ],
)
def test_numbers_in_the_wrong_unit_or_out_of_reach_are_refused(topic: str, changes: dict[str, Any], code: str) -> None:
    assert reason(topic, raw(SAMPLES[topic](), **changes)) == code


def test_a_record_in_another_topic_is_refused() -> None:
    assert reason("funding_rates", encode(price())) == "missing_field"


def test_control_messages_in_the_wrong_place_are_refused() -> None:
    beat = heartbeat()
    assert reason("prices", encode(beat), headers_of(beat)) == "wrong_record_type"
    assert reason("liquidations", encode(beat), [("record_type", b"\xffwatermark")]) == "wrong_record_type"
    mark = Watermark(schema_version=1, world="real", watermark=T0)
    assert reason("prices", encode(mark), headers_of(mark)) == "world_mismatch"


def test_an_event_after_its_arrival_in_kafka_is_refused_for_live_and_archive_only() -> None:
    live = price(0)
    recorded = price(0, origin="recorded", world="recorded/x")
    early = T0 - timedelta(seconds=61)
    assert reason("prices", encode(live), (), early) == "future_event"
    assert decode("prices", encode(live), (), T0 - timedelta(seconds=60)) == live
    # A recording of a later day than the broker's clock shows is played against the recording's own clock.
    assert decode("prices", encode(recorded), (), early) == recorded


@settings(max_examples=500, deadline=None)
@given(topic=st.sampled_from(IN_TOPICS), data=st.data())
def test_any_bytes_either_decode_or_have_a_reason(topic: str, data: st.DataObject) -> None:
    value = bytearray(encode(SAMPLES[topic](1)))
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(value) - 1))
        value[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9)) or b"0"
    try:
        message = decode(topic, bytes(value), (), None)
    except DecodeError as error:
        said = (error.code, str(error))
    else:
        said = ("", "") if not isinstance(message, Record) else ("record", "decoded")
    assert all(said)
