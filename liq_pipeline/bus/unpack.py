"""From fetched bytes to messages, at landing speed.

Belongs here: taking Kafka's record batches (format 2) apart, and how much of them at once. Does not: fetching,
decompression (uncompress.py), or what a message means (codec.py).

kafka-python takes records apart one property call at a time, which was two fifths of all that landing computes: poll()
took 5.6 microseconds a message and takes about 1.5 with this. Checksums, transactions and older formats stay
the library's; what both make of the same bytes is compared by a test, broken bytes included, and the library's
version is pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import dropwhile, islice
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

from liq_pipeline.bus.uncompress import MAX_UNPACKED_BYTES, TooLargeError, uncompress

MAX_BATCH_RECORDS = 250_000
"""What fits into the bound of a batch at 134 bytes a message; ours have more. A batch of 30 kB can hold four million
empty ones, and each would become a dead letter."""

_LOG_APPEND_TIME = 1


class Message(NamedTuple):
    """A message as it lies in Kafka. timestamp: ms since 1970, the broker's where the topic says so; -1 for none."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class BrokenBatchError(Exception):
    """A batch whose checksum is right cannot be taken apart, or not within the bound. Behind it reading goes on."""


class RoomSpentError(Exception):
    """What one poll may unpack is spent: what it has goes first, the next poll goes on from there."""


class PassedOver(NamedTuple):
    """Messages of one batch that cannot be taken apart, without to_offset, and why. place: the library's."""

    place: TopicPartition
    from_offset: int
    to_offset: int
    why: str


class Room:
    """How many bytes one poll may still unpack, over all its partitions. The batch that passes the bound is still in.

    passed_over: what could not be taken apart on the way, in order; whoever polls empties it.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._left_bytes = size_bytes
        self.passed_over: list[PassedOver] = []

    def clear(self) -> None:
        """A new poll begins."""
        self._left_bytes = self._size_bytes

    def take(self, size_bytes: int) -> None:
        """A batch of this size was unpacked."""
        self._left_bytes -= size_bytes

    @property
    def is_spent(self) -> bool:
        """Whether the next batch has to wait for the next poll."""
        return self._left_bytes <= 0


def lean_records(room: Room) -> type[LeanRecords]:
    """The class that takes the partitions of one consumer apart; all of them share the room."""
    return type("LeanRecords", (LeanRecords,), {"room": room})


class LeanRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the library has no types
    """The library's records of one fetched partition, giving Message instead of ConsumerRecord, batch after batch."""

    room: Room
    next_fetch_offset: int

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
        """What the library calls first: keep the batches, and open each only when its turn comes."""
        self._batches, self._deserializers = records, deserializers
        self._batch: Any = None
        self._messages: Iterator[Message | Any] | None = None
        return iter(())

    def take(self, n: int | None = None) -> list[Any]:
        """Up to n messages; the next fetch begins behind the last, be it in the middle of its batch.

        A batch that cannot be taken apart is passed over, and the room is told. What was taken before another error
        comes first; the error is raised by the next call. Raises RoomSpentError where no batch may be opened now; not
        after one was passed over: the library takes over where reading goes on from what returns only, and would
        fetch that batch again, for ever.
        """
        self._maybe_raise_next_inline_exception()
        taken: list[Any] = []
        begun_at = self.next_fetch_offset
        try:
            while n is None or len(taken) < n:
                has_moved = bool(taken) or self.next_fetch_offset != begun_at
                if self._messages is None and not self._open_next(has_moved=has_moved):
                    break
                try:
                    taken.extend(islice(self._messages or (), None if n is None else n - len(taken)))
                except BrokenBatchError as error:
                    self._pass_over(taken, str(error))
                if n is None or len(taken) < n:
                    self._messages = None
                    if self._batch is not None:
                        self.next_fetch_offset = self._batch.next_offset
                elif taken:
                    self.next_fetch_offset = taken[-1].offset + 1
        except Exception as error:
            if not taken:
                raise
            self._next_inline_exception = error
        return taken

    def _pass_over(self, taken: list[Any], why: str) -> None:
        """The rest of the batch that is open is out of reach: its messages are read one behind the other."""
        first = max(self._batch.base_offset, self.next_fetch_offset, taken[-1].offset + 1 if taken else 0)
        place = TopicPartition(self.topic_partition.topic, self.topic_partition.partition)
        self.room.passed_over.append(PassedOver(place, first, self._batch.next_offset, why))

    def _open_next(self, *, has_moved: bool) -> bool:
        """Open the next batch that is for us; False if there is none, or none may be opened in this poll."""
        if self.room.is_spent:
            if not has_moved:
                raise RoomSpentError
            return False
        batch = self._batches.next_batch()
        while batch is not None and batch.magic == 2:
            self.leader_epoch = batch.leader_epoch
            if not batch.validate_crc():
                raise CorruptRecordError(
                    f"the batch at offset {batch.base_offset} of {self.topic_partition} fails its checksum"
                )
            if not self._is_hidden(batch):
                self._batch = batch
                self._messages = self._messages_of(batch)
                return True
            self.next_fetch_offset = batch.next_offset
            batch = self._batches.next_batch()
        if batch is None:
            self.drain()
            return False
        # A format older than 2 is the library's business, with all that follows.
        self._batch = None
        theirs = super()._unpack_records(self.topic_partition, _Resumed(batch, self._batches), *self._deserializers)
        self._messages = dropwhile(self._maybe_skip_record, theirs)
        return True

    def _messages_of(self, batch: DefaultRecordBatch) -> Iterator[Message]:
        try:
            self.room.take(_uncompress(batch))
        except BrokenBatchError as error:
            self.room.take(MAX_UNPACKED_BYTES)  # that much work it was, and a flood of such must not hold a poll
            self._pass_over([], str(error))
            return iter(())
        self.records_read += batch.records_count
        self.bytes_read += batch.records_count  # the library only asks whether any were read
        # A fetch from the middle of a batch brings the whole of it; and a broken batch may begin anywhere.
        return dropwhile(self._maybe_skip_record, messages_of(batch, self.topic_partition.partition))

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


def _uncompress(batch: DefaultRecordBatch) -> int:
    """Unpack the batch in place, as the library's _maybe_uncompress() does, and say how many bytes that came to."""
    if batch.records_count > MAX_BATCH_RECORDS:
        raise BrokenBatchError(f"the batch holds {batch.records_count:,} messages, past {MAX_BATCH_RECORDS:,}")
    if batch.compression_type != batch.CODEC_NONE and not batch._decompressed:
        try:
            batch._buffer = uncompress(batch.compression_type, memoryview(batch._buffer)[batch._pos :])
        except TooLargeError:
            raise BrokenBatchError(f"unpacked, the batch is larger than {MAX_UNPACKED_BYTES >> 20} MiB") from None
        except ValueError as error:
            raise BrokenBatchError(str(error)) from error
        batch._pos = 0
    batch._decompressed = True
    return len(batch._buffer)


def messages_of(batch: DefaultRecordBatch, partition: int) -> Iterator[Message]:
    """The messages of one batch, in order. Raises BrokenBatchError where the bytes stop making sense.

    Layout: https://kafka.apache.org/documentation/#recordbatch. Numbers are zigzag varints; nearly all are one byte
    long, the size of a value and most offsets two, which is why those cases are written out: a call costs as much as
    everything else that is done for the number.
    """
    _uncompress(batch)
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
                raise BrokenBatchError(f"a record of {length} bytes ends {pos - end} bytes off")
            yield new(Message, (partition, base_offset + offset, timestamp, key, value, headers))
    except (ValueError, IndexError) as error:
        raise BrokenBatchError(f"the bytes of a record make no sense: {error!r}") from error
    if pos != len(buffer):
        raise BrokenBatchError(f"{len(buffer) - pos} bytes are left behind the last record")


def _read_headers(buffer: bytes, pos: int) -> tuple[list[tuple[str, bytes | None]], int]:
    headers: list[tuple[str, bytes | None]] = []
    count, pos = decode_varint(buffer, pos)
    if count < 0:
        raise ValueError(f"a record has {count} headers")
    for _ in range(count):
        size, pos = decode_varint(buffer, pos)
        if size < 0:
            raise ValueError(f"the name of a header has {size} bytes")
        name = buffer[pos : pos + size].decode()
        pos += size
        size, pos = decode_varint(buffer, pos)
        value = None
        if size >= 0:
            value = buffer[pos : pos + size]
            pos += size
        headers.append((name, value))
    return headers, pos
