"""Decompression with a bound: what a batch of Kafka may unpack to is decided here, not by whoever wrote it.

Belongs here: the four codecs of Kafka, each stopped as soon as it passes the bound. Does not: what lies inside a batch
(unpack.py).

The client library unpacks whatever it is given: a message of a megabyte that unpacks to hundreds of them took a run
worker to 3.7 GB and stopped ticks for minutes. Each codec here holds at most the bound and one block above it.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from typing import Final

import lz4.frame
import snappy
import zstandard
from kafka.codec import _detect_xerial_stream
from kafka.record.default_records import DefaultRecordBatch

MAX_UNPACKED_BYTES: Final = 32 * 1024 * 1024
"""Of one batch. A broker takes 1 MiB as it lies on the wire, by default, and JSON like ours packs 5 to 20 times."""

_NONSENSE: Final = (
    *(OSError, EOFError, RuntimeError),
    *(struct.error, zlib.error, zstandard.ZstdError, snappy.UncompressError),
)
_XERIAL_HEADER_BYTES: Final = 16
_STEP_BYTES: Final = 1024 * 1024


class TooLargeError(Exception):
    """Unpacked, the batch is larger than the bound."""


def uncompress(codec: int, packed: bytes | memoryview, limit: int = MAX_UNPACKED_BYTES) -> bytes:
    """The bytes behind a compressed batch. codec: the number in the batch's attributes.

    Raises TooLargeError above the limit, ValueError where the bytes are not what the codec says.
    """
    try:
        found = _CODECS[codec](bytes(packed), limit)
    except _NONSENSE as error:
        raise ValueError(f"not {_NAMES[codec]}: {error}") from error
    if len(found) > limit:
        raise TooLargeError
    return found


def _gzip(packed: bytes, limit: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(packed), mode="r") as stream:
        return stream.read(limit + 1)


def _snappy(packed: bytes, limit: int) -> bytes:
    """A raw block, or the blocks that Java's library writes one after another, each behind its size."""
    if not _detect_xerial_stream(packed):
        return _snappy_block(packed, limit)
    found = bytearray()
    place = _XERIAL_HEADER_BYTES
    while place < len(packed):
        (size,) = struct.unpack_from("!i", packed, place)
        place += 4
        if size < 0:
            raise ValueError(f"a block of {size} bytes")
        found += _snappy_block(packed[place : place + size], limit - len(found))
        place += size
    return bytes(found)


def _snappy_block(packed: bytes, limit: int) -> bytes:
    """One block. It begins with the size that it unpacks to, for which the library makes room before it looks."""
    size = shift = 0
    for byte in packed[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if size > limit:
        raise TooLargeError
    return bytes(snappy.decompress(packed))


def _lz4(packed: bytes, limit: int) -> bytes:
    stream = lz4.frame.LZ4FrameDecompressor()
    found = bytearray(stream.decompress(packed, max_length=_STEP_BYTES))
    while not stream.eof and not stream.needs_input and len(found) <= limit:
        found += stream.decompress(b"", max_length=_STEP_BYTES)
    if not stream.eof and len(found) <= limit:
        raise EOFError("the frame is cut short")
    return bytes(found)


def _zstd(packed: bytes, limit: int) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True) as reader:
        return reader.read(limit + 1)


_CODECS: Final[dict[int, Callable[[bytes, int], bytes]]] = {
    DefaultRecordBatch.CODEC_GZIP: _gzip,
    DefaultRecordBatch.CODEC_SNAPPY: _snappy,
    DefaultRecordBatch.CODEC_LZ4: _lz4,
    DefaultRecordBatch.CODEC_ZSTD: _zstd,
}
_NAMES: Final = {
    DefaultRecordBatch.CODEC_GZIP: "gzip",
    DefaultRecordBatch.CODEC_SNAPPY: "snappy",
    DefaultRecordBatch.CODEC_LZ4: "lz4",
    DefaultRecordBatch.CODEC_ZSTD: "zstd",
}
