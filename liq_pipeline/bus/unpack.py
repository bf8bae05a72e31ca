"""From fetched bytes to messages, at landing speed.

Belongs here: taking Kafka's record batches (format 2) apart. Does not: fetching, or what a message means (codec.py).

kafka-python takes records apart one property call at a time, which was two fifths of all that landing computes: poll()
took 5.6 microseconds a message and takes about 1.5 with this. Checksums, compression, transactions and older formats
stay the library's; what both make of the same bytes is compared by a test, broken bytes included, and the library's
version is pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

_LOG_APPEND_TIME = 1


class Message(NamedTuple):
    """A message as it lies in Kafka. timestamp: ms since 1970, the broker's where the topic says so; -1 for none."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class LeanRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the library has no types
    """The library's records of one fetched partition, giving Message instead of ConsumerRecord."""

    def _unpack_records(
        self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any
    ) -> Iterator[Message | Any]:
        batch = records.next_batch()
        while batch is not None and batch.magic == 2:
            self.leader_epoch = batch.leader_epoch
            if not batch.validate_crc():
                raise CorruptRecordError(f"the batch at offset {batch.base_offset} of {tp} fails its checksum")
            if not self._is_hidden(batch):
                self.records_read += batch.records_count
                self.bytes_read += batch.records_count  # the library only asks whether any were read
                yield from messages_of(batch, tp.partition)
            self.next_fetch_offset = batch.next_offset
            batch = records.next_batch()
        if batch is None:
            self.drain()
        else:
            yield from super()._unpack_records(tp, _Resumed(batch, records), key_deserializer, value_deserializer)

    def take(self, n: int | None = None) -> list[Any]:
        """Up to n messages; the next fetch begins behind the last, be it in the middle of its batch."""
        taken: list[Any] = super().take(n)
        if taken and self.record_iterator is not None:  # at the end the batch says where the next one begins
            self.next_fetch_offset = taken[-1].offset + 1
        return taken

    def _is_hidden(self, batch: Any) -> bool:
        """Whether a batch is Kafka's own marker, or of a transaction that was given up."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


class _Resumed:
    """Records of which the first batch has been taken out already."""

    def __init__(self, first: Any, rest: Any) -> None:
        self._first, self._rest = first, rest

    def next_batch(self) -> Any:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return self._rest.next_batch()


def messages_of(batch: DefaultRecordBatch, partition: int) -> Iterator[Message]:
    """The messages of one batch, in order. Raises CorruptRecordError where the bytes stop making sense.

    Layout: https://kafka.apache.org/documentation/#recordbatch. Numbers are zigzag varints; nearly all are one byte
    long, the size of a value and most offsets two, which is why those cases are written out: a call costs as much as
    everything else that is done for the number.
    """
    batch._maybe_uncompress()
    buffer = bytes(batch._buffer)
    pos = batch._pos
    base_offset, first_timestamp = batch.base_offset, batch.first_timestamp
    appended = batch.max_timestamp if batch.timestamp_type == _LOG_APPEND_TIME else None
    new = tuple.__new__  # what Message(...) does, without a call in Python
    try:
        for _ in range(batch.records_count):
            length, pos = decode_varint(buffer, pos)
            end = pos + length
            if buffer[pos] < 0x80:  # attributes: unused
                pos += 1
            else:
                _, pos = decode_varint(buffer, pos)
            if buffer[pos] < 0x80 and appended is not None:
                pos += 1
                timestamp = appended
            else:
                delta, pos = decode_varint(buffer, pos)
                timestamp = first_timestamp + delta if appended is None else appended
            if (low := buffer[pos]) < 0x80:
                offset = (low >> 1) ^ -(low & 1)
                pos += 1
            elif (high := buffer[pos + 1]) < 0x80:
                offset = ((low & 0x7F | high << 7) >> 1) ^ -(low & 1)
                pos += 2
            else:
                offset, pos = decode_varint(buffer, pos)
            if (low := buffer[pos]) < 0x80:
                size = (low >> 1) ^ -(low & 1)
                pos += 1
            else:
                size, pos = decode_varint(buffer, pos)
            key = None
            if size >= 0:
                key = buffer[pos : pos + size]
                pos += size
            if (low := buffer[pos]) >= 0x80 and (high := buffer[pos + 1]) < 0x80:
                size = ((low & 0x7F | high << 7) >> 1) ^ -(low & 1)
                pos += 2
            else:
                size, pos = decode_varint(buffer, pos)
            value = None
            if size >= 0:
                value = buffer[pos : pos + size]
                pos += size
            headers: Sequence[tuple[str, bytes | None]] = ()
            if buffer[pos] == 0:
                pos += 1
            else:
                headers, pos = _read_headers(buffer, pos)
            if pos != end:
                raise CorruptRecordError(f"a record of {length} bytes ends {pos - end} bytes off")
            yield new(Message, (partition, base_offset + offset, timestamp, key, value, headers))
    except (ValueError, IndexError) as error:
        raise CorruptRecordError(f"the bytes of a record make no sense: {error!r}") from error
    if pos != len(buffer):
        raise CorruptRecordError(f"{len(buffer) - pos} bytes are left behind the last record")


def _read_headers(buffer: bytes, pos: int) -> tuple[list[tuple[str, bytes | None]], int]:
    headers: list[tuple[str, bytes | None]] = []
    count, pos = decode_varint(buffer, pos)
    if count < 0:
        raise CorruptRecordError(f"a record has {count} headers")
    for _ in range(count):
        size, pos = decode_varint(buffer, pos)
        if size < 0:
            raise CorruptRecordError(f"the name of a header has {size} bytes")
        name = buffer[pos : pos + size].decode()
        pos += size
        size, pos = decode_varint(buffer, pos)
        value = None
        if size >= 0:
            value = buffer[pos : pos + size]
            pos += size
        headers.append((name, value))
    return headers, pos
