"""Our reading of Kafka's bytes beside the client library's: the same messages, and the same refusals."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords, MemoryRecordsBuilder
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import calc_crc32c

from liq_pipeline.bus.uncompress import TooLargeError, uncompress
from liq_pipeline.bus.unpack import MAX_BATCH_RECORDS, PassedOver, Room, RoomSpentError, lean_records

PLACE = TopicPartition("prices", 2)
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
bodies = st.none() | st.binary(max_size=200)
messages = st.lists(
    st.tuples(st.integers(0, 2**42), bodies, bodies, st.lists(st.tuples(st.text(max_size=5), bodies), max_size=3)),
    min_size=1,
    max_size=20,
)


def batch_of(
    content: list[Any], compression: int, magic: int = 2, base: int = 0, size_bytes: int = 1 << 20, **transaction: Any
) -> bytes:
    builder = MemoryRecordsBuilder(magic, compression, size_bytes, **transaction)
    for timestamp, key, value, headers in content:
        builder.append(timestamp, key, value, headers if magic == 2 else [])
    builder.close()
    data = bytearray(builder.buffer())
    data[:8] = base.to_bytes(8, "big")  # as the broker does
    return bytes(data)


def with_append_time(data: bytes) -> bytes:
    """As a broker stores it under LogAppendTime: the flag set, the checksum made anew."""
    changed = bytearray(data)
    changed[DefaultRecordBatch.ATTRIBUTES_OFFSET + 1] |= DefaultRecordBatch.TIMESTAMP_TYPE_MASK
    return with_checksum(changed)


def with_checksum(changed: bytearray) -> bytes:
    start = DefaultRecordBatch.ATTRIBUTES_OFFSET
    changed[start - 4 : start] = calc_crc32c(memoryview(changed)[start:]).to_bytes(4, "big")
    return bytes(changed)


def theirs(data: bytes, **more: Any) -> tuple[list[Any], Any, bool]:
    return read(Fetcher.PartitionRecords, data, **more)


def ours(data: bytes, **more: Any) -> tuple[list[Any], Any, bool]:
    """As the library's, which stops for good where ours says what it passes over and reads on."""
    room = Room(2**40)
    found, offset, refused = read(lean_records(room), data, **more)
    if room.passed_over:
        (hole,) = room.passed_over
        assert hole.to_offset == offset
        assert hole.from_offset >= (found[-1][1] + 1 if found else 0)
        return found, hole.from_offset, True
    return found, offset, refused


def read(kind: type[Any], data: bytes, aborted: Any = None, fetch_offset: int = 0) -> tuple[list[Any], Any, bool]:
    """The messages, the offset to read on from, and whether the bytes were refused in the end."""
    records = kind(
        fetch_offset,
        PLACE,
        MemoryRecords(data),
        isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=aborted,
    )
    found: list[Any] = []
    refused = False
    try:
        while records:
            got = records.take(3)
            found += [(m.partition, m.offset, m.timestamp, m.key, m.value, list(m.headers)) for m in got]
            if not got and records.record_iterator is None:
                break
            if not got:
                break
    except CorruptRecordError:
        refused = True
    return found, records.next_fetch_offset, refused


@pytest.mark.parametrize("compression", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
@settings(max_examples=40, deadline=None)
@given(messages, messages, st.booleans(), st.integers(0, 25))
def test_the_messages_are_those_that_the_library_finds(
    compression: int, one: list[Any], two: list[Any], by_broker: bool, start: int
) -> None:
    first, second = batch_of(one, compression), batch_of(two, NONE, base=len(one))
    data = (with_append_time(first) if by_broker else first) + second
    found = ours(data, fetch_offset=start)
    assert found == theirs(data, fetch_offset=start)
    assert [value for _, _, _, _, value, _ in found[0]] == [m[2] for m in [*one, *two]][start:]


@settings(max_examples=200, deadline=None)
@given(messages, st.integers(0, 10_000), st.integers(0, 255))
@example(content=[(0, None, None, [])], place=255, byte=1)  # a message before the batch's own beginning
def test_broken_bytes_are_refused_where_the_library_refuses_them(content: list[Any], place: int, byte: int) -> None:
    broken = bytearray(batch_of(content, NONE))
    start = DefaultRecordBatch.HEADER_STRUCT.size
    broken[start + place % (len(broken) - start)] = byte
    data = with_checksum(broken)  # what a wrong program wrote, not what a wire garbled
    assert ours(data) == theirs(data)


def test_a_wrong_checksum_is_refused() -> None:
    data = bytearray(batch_of([(1, b"k", b"value", [])], NONE))
    data[-3] ^= 1
    assert ours(bytes(data)) == theirs(bytes(data)) == ([], 0, True)


@pytest.mark.parametrize("magic", [0, 1])
def test_messages_of_an_older_format_are_read_by_the_library(magic: int) -> None:
    data = batch_of([(5, b"k", b"old", [])], NONE, magic=magic) + batch_of([(6, b"k", b"new", [])], NONE, base=1)
    found, next_offset, refused = ours(data)
    assert [message[4] for message in found] == [b"old", b"new"]
    assert (next_offset, refused) == (2, False)


def test_what_a_given_up_transaction_wrote_is_passed_over() -> None:
    class Aborted:
        producer_id, first_offset = 7, 1

    transactional = {"transactional": True, "producer_id": 7, "producer_epoch": 0, "base_sequence": 0}
    content = [(1, b"k", b"value", [])]
    data = batch_of(content, NONE) + batch_of(content, NONE, base=1, **transactional) + batch_of(content, NONE, base=2)
    found = ours(data, aborted=[Aborted()])
    assert found == theirs(data, aborted=[Aborted()])
    assert [message[1] for message in found[0]] == [0, 2]


def test_behind_a_batch_that_cannot_be_taken_apart_reading_goes_on() -> None:
    """Its messages before the broken one are kept; the rest of it is told, with its place."""
    content = [(1, b"k", b"value", []), (2, b"k", b"other", []), (3, b"k", b"third", [])]
    broken = bytearray(batch_of(content, NONE))
    second = broken.index(b"other")
    broken[second - 1] = 0x7F  # the length of its value
    data = with_checksum(broken) + batch_of([(4, b"k", b"next", [])], NONE, base=3)
    room = Room(2**40)
    found, offset, refused = read(lean_records(room), data)
    assert ([m[4] for m in found], offset, refused) == ([b"value", b"next"], 4, False)
    (hole,) = room.passed_over
    assert (hole.place, hole.from_offset, hole.to_offset) == (PLACE, 1, 3)


@pytest.mark.parametrize("compression", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_poll_opens_batches_until_its_room_is_spent(compression: int) -> None:
    content = [(1, b"k", bytes(40_000), [])]
    data = b"".join(batch_of(content, compression, base=number) for number in range(5))
    room = Room(100_000)
    records = lean_records(room)(0, PLACE, MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED)
    assert [m.offset for m in records.take(10)] == [0, 1, 2]
    with pytest.raises(RoomSpentError):
        records.take(10)
    assert records.next_fetch_offset == 3
    room.clear()
    assert [m.offset for m in records.take(10)] == [3, 4]
    assert room.passed_over == []


@pytest.mark.parametrize("compression", [GZIP, SNAPPY, LZ4, ZSTD])
@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(1, 200_000), st.integers(0, 250_000))
def test_what_unpacks_to_more_than_the_limit_is_refused(compression: int, seed: bytes, size: int, limit: int) -> None:
    content = (seed * (size // len(seed) + 1))[:size]
    batch = DefaultRecordBatch(bytearray(batch_of([(1, None, content, [])], compression)))
    if batch.compression_type == NONE:
        return  # the builder keeps what does not get smaller as it is
    packed = bytes(batch._buffer[batch._pos :])
    plain = uncompress(compression, packed)
    assert content in plain
    if limit < len(plain):
        with pytest.raises(TooLargeError):
            uncompress(compression, packed, limit)
    else:
        assert uncompress(compression, packed, limit) == plain


@pytest.mark.parametrize("compression", [GZIP, SNAPPY, LZ4, ZSTD])
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=100))
def test_bytes_that_no_codec_made_are_refused_as_such(compression: int, packed: bytes) -> None:
    with suppress(ValueError, TooLargeError):
        assert isinstance(uncompress(compression, packed), bytes)


def test_a_batch_that_unpacks_to_more_than_the_bound_is_told_with_its_place() -> None:
    data = batch_of([(1, b"k", bytes(33 << 20), [])], ZSTD, base=0) + batch_of([(4, b"k", b"n", [])], NONE, base=1)
    room = Room(2**40)
    found, offset, refused = read(lean_records(room), data)
    assert ([m[4] for m in found], offset, refused) == ([b"n"], 2, False)
    assert room.passed_over == [PassedOver(PLACE, 0, 1, "unpacked, the batch is larger than 32 MiB")]


def test_a_batch_that_is_passed_over_first_moves_on_before_the_spent_room_is_told() -> None:
    """The library takes over where to read on from a take() that returns, and else fetches the batch again."""
    data = batch_of([(1, b"k", bytes(33 << 20), [])], ZSTD, base=0) + batch_of([(4, b"k", b"n", [])], NONE, base=1)
    room = Room(1 << 20)
    records = lean_records(room)(0, PLACE, MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED)
    assert records.take(10) == []
    assert (records.next_fetch_offset, len(room.passed_over)) == (1, 1)
    with pytest.raises(RoomSpentError):
        records.take(10)
    room.clear()
    assert [m.value for m in records.take(10)] == [b"n"]


def test_a_batch_of_more_messages_than_the_bound_is_not_opened() -> None:
    """Millions of empty ones fit into 30 kB, and each would become a dead letter."""
    data = batch_of([(1, None, b"", [])] * (MAX_BATCH_RECORDS + 1), ZSTD, size_bytes=1 << 24)
    room = Room(2**40)
    found, offset, refused = read(lean_records(room), data)
    assert (found, offset, refused) == ([], MAX_BATCH_RECORDS + 1, False)
    why = "the batch holds 250,001 messages, past 250,000"
    assert room.passed_over == [PassedOver(PLACE, 0, MAX_BATCH_RECORDS + 1, why)]
