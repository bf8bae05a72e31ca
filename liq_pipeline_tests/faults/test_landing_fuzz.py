"""Ten thousand messages that something is wrong with: each lands by value or is a dead letter, and landing lives on."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from kafka import KafkaProducer

from liq_pipeline.bus.codec import encode
from liq_pipeline.bus.topics import IN_TOPICS, PARTITIONS, wire_name
from liq_pipeline.domain.records import Watermark
from liq_pipeline.store.landing.dead_letters import KEPT_BYTES
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline.store.landing.tables import TABLES
from liq_pipeline_tests.landing_support import SAMPLES, T0, heartbeat, select

SENT = 10_000
Place = tuple[str, int, int]
"""topic, partition, offset"""

HOSTILE: list[Any] = [
    *(None, True, False, 0, -0.0, 1, -1, 7, 2**31, 2**63, 10**40, 1e-308, 1.5e308, 0.1 + 0.2, 59.999999999999999),
    *("", "0", "1", "NaN", "-Infinity", "1e5", " 1", "1_000", "0x10", "BTC", "btc", "BTC\n", "x" * 300, "x" * 100_000),
    *(
        "\x00",
        "a\x00b",
        "\u202e",
        "\U0001f4a5",
        "\u017f",
        "\u0663",
        "'; DROP TABLE prices; --",
        "real",
        "recorded/x",
        "archive",
    ),
    *([], {}, [[]], {"a": 1}, [1.0], ["long"]),
    *("2026-01-05T12:00:00Z", "2026-01-05T12:00:00", "2026-01-05", "2026-02-30T00:00:00Z", "2026-01-05T24:00:00Z"),
    *("9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2026-01-05T23:59:60Z"),
    *("2026-01-05T02:00:00+14:00", "2026-01-05T12:00:00.123456789Z", "2026-01-05t12:00:00z", "20260105T120000Z"),
    *(1_767_614_400, 1_767_614_400_000, "12:00", "now"),
]
NUMBERS = [
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-1e999",
    b"1E5",
    b"01",
    b".5",
    b"5.",
    b"-",
    b"-0",
    b"0x10",
    b"9" * 400,
    b"1e-999",
]
BROKEN_TEXT = [
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"\\u0000",
    b"\x00",
    b"\x1f",
    b"\\x",
]


def with_field(message: dict[str, Any], noise: random.Random) -> bytes:
    """One to three fields set to anything, taken out, or added."""
    for _ in range(noise.randint(1, 3)):
        name = noise.choice([*message, "unknown_field", "known_at", "schema_version", "", "world\x00"])
        if noise.random() < 0.2:
            message.pop(name, None)
        else:
            message[name] = noise.choice(HOSTILE)
    return json.dumps(message, ensure_ascii=noise.random() < 0.5).encode("utf-8", "surrogatepass")


def with_number(message: dict[str, Any], noise: random.Random) -> bytes:
    """A field's value as bytes that no JSON writer would make."""
    message[noise.choice(list(message))] = "@@"
    return json.dumps(message).encode().replace(b'"@@"', noise.choice(NUMBERS))


def with_text(message: dict[str, Any], noise: random.Random) -> bytes:
    """Bytes in a text that are not UTF-8, or escapes of half a character."""
    message[noise.choice([*message, "unknown_field"])] = "a@@b"
    return json.dumps(message).encode().replace(b"@@", noise.choice(BROKEN_TEXT))


def with_shape(message: dict[str, Any], noise: random.Random) -> bytes:
    """The whole value wrapped, doubled, in another encoding, deep or huge."""
    value = json.dumps(message).encode()
    first = noise.choice(list(message))
    return noise.choice(
        [
            b"[" + value + b"]",
            value + value,
            b" \n\t" + value + b"\r\n ",
            b"\xef\xbb\xbf" + value,
            value.decode().encode("utf-16"),
            value[:-1] + b',"unknown":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
            value[:-1] + b',"unknown":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
            value[:-1] + b',"unknown":"' + b"x" * 500_000 + b'"}',
            value[:-1] + b"," + json.dumps({first: noise.choice(HOSTILE)}).encode()[1:],  # a field twice
            json.dumps(value.decode()).encode(),
            b"null",
            b"{}",
            b"",
        ]
    )


def with_noise(message: dict[str, Any], noise: random.Random) -> bytes:
    """Bytes changed, lost, put in, cut off, or all of them random."""
    changed = bytearray(json.dumps(message).encode())
    place = noise.randrange(len(changed))
    kind = noise.randrange(5)
    if kind == 0:
        return bytes(changed[:place])
    if kind == 1:
        return noise.randbytes(noise.randint(1, 300))
    if kind == 2:
        del changed[place : place + noise.randint(1, 30)]
    elif kind == 3:
        changed[place:place] = noise.randbytes(noise.randint(1, 5))
    else:
        for _ in range(noise.randint(1, 4)):
            changed[noise.randrange(len(changed))] = noise.randrange(256)
    return bytes(changed)


def unchanged(message: dict[str, Any], noise: random.Random) -> bytes:
    """In another order and with other spaces: the same message."""
    names = list(message)
    noise.shuffle(names)
    return json.dumps({name: message[name] for name in names}, indent=noise.choice([None, 1])).encode()


MUTATIONS: list[Callable[[dict[str, Any], random.Random], bytes]] = [
    with_field, with_field, with_field, with_number, with_text, with_shape, with_noise, with_noise, unchanged,
]  # fmt: skip
KEYS = [None, b"", b"BTC", b"ETH", b"\xff\x00", b"k" * 1000]
HEADERS: list[list[tuple[str, bytes]]] = [
    [],
    [],
    [("traceparent", b"\x00\xff")],
    [("record_type", b"heartbeat")],
    [("record_type", b"watermark")],
    [("record_type", b"")],
    [("record_type", b"\xff"), ("record_type", b"heartbeat")],
    [("", b""), *((f"h{n}", b"x") for n in range(50))],
]


def send_all(kafka_server: str, prefix: str, noise: random.Random) -> dict[Place, bytes | None]:
    """Send the mutated messages by producers of every compression; the value by the place it got."""
    producers = [
        KafkaProducer(bootstrap_servers=kafka_server, compression_type=codec, linger_ms=20, acks="all")
        for codec in (None, "gzip", "snappy", "lz4", "zstd")
    ]
    mark = json.loads(encode(Watermark(schema_version=1, world="recorded/x", watermark=T0)))
    sent = []
    for number in range(SENT):
        topic = noise.choice(IN_TOPICS)
        message = json.loads(encode(SAMPLES[topic](number)))
        headers = noise.choice(HEADERS) if noise.random() < 0.2 else []
        if headers and noise.random() < 0.7:
            message = noise.choice([mark, json.loads(encode(heartbeat(number)))])
        value = noise.choice(MUTATIONS)(dict(message), noise) if noise.random() > 0.01 else None
        future = noise.choice(producers).send(
            wire_name(topic, prefix),
            value=value,
            key=noise.choice(KEYS if value is not None else KEYS[1:]),  # this client sends no message without both
            headers=headers,
            partition=noise.randrange(PARTITIONS),
        )
        sent.append((topic, value, future))
    for producer in producers:
        producer.flush()
        producer.close()
    places: dict[Place, bytes | None] = {}
    for topic, value, future in sent:
        metadata = future.get(30)
        places[topic, metadata.partition, metadata.offset] = value
    assert len(places) == SENT
    return places


def stored(value: Any, kind: str) -> Any:
    """What a column of this type holds for a field of the message, read by Python's own means."""
    if value is None:
        return None
    if kind == "timestamptz":
        return datetime.fromisoformat(value.upper())
    return {"float8": float, "numeric": Decimal}.get(kind, lambda same: same)(value)


DEFAULTS = {"event_time_source": "venue", "is_canonical": True}
DERIVED = {"rate_per_8h", "orphaned_known_at", "kafka_cluster", "kafka_partition", "kafka_offset"}


def assert_equal_to_its_message(columns: dict[str, str], row: dict[str, Any], value: bytes) -> None:
    message = json.loads(value)
    for name, kind in columns.items():
        if name in DERIVED:
            continue
        given = message.get(name, DEFAULTS.get(name))
        if name == "known_at" and given is None:
            given = message["received_at"]
        expected = stored(given, kind)
        if kind == "timestamptz" and expected is not None:
            # PostgreSQL holds microseconds.
            assert abs(row[name] - expected) <= timedelta(microseconds=1), (name, value)
        else:
            assert row[name] == expected, (name, value)


def test_ten_thousand_mutated_messages_land_by_value_or_die_with_a_reason(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    sent = send_all(kafka_server, topic_prefix, random.Random(10))

    with Lander(database_url, kafka_server, topic_prefix) as lander:
        result = lander.land_to_end(120)

    assert (result.read, result.reached_end, result.gaps) == (SENT, True, 0)
    handled = result.rows_landed + result.duplicates + result.conflicts + result.heartbeats + result.watermarks
    assert handled + result.dead == SENT
    assert min(handled, result.dead) > 1500

    dead = {(topic, number, offset): value for topic, number, offset, value in select(
        database_url, "SELECT topic, kafka_partition, kafka_offset, value_bytes FROM dead_letters"
    )}  # fmt: skip
    assert len(dead) == result.dead
    kept = {place: None if sent[place] is None else (sent[place] or b"")[:KEPT_BYTES] for place in dead}
    assert dead == kept
    codes = Counter(code for code, _ in select(database_url, "SELECT reason_code, reason FROM dead_letters"))
    assert codes.keys() >= {
        "empty_value", "not_json", "unknown_version", "missing_field", "invalid_field", "impossible_number",
        "impossible_time", "future_event", "world_mismatch", "known_at_missing", "wrong_record_type", "wrong_unit",
    }  # fmt: skip
    assert select(database_url, "SELECT count(*) FROM dead_letters WHERE reason = '' OR reason_code = ''") == [(0,)]

    landed = 0
    for table in TABLES.values():
        if table.name == "heartbeats":
            continue
        for values in select(database_url, f"SELECT {', '.join(table.columns)} FROM {table.name}"):  # noqa: S608
            row = dict(zip(table.columns, values, strict=True))
            place = (table.name, row["kafka_partition"], row["kafka_offset"])
            assert place not in dead
            value = sent[place]
            assert value is not None
            assert_equal_to_its_message(table.columns, row, value)
            landed += 1
    assert landed == result.rows_landed
