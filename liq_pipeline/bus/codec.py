"""Bytes from and to messages: JSON, typed.

Belongs here: encoding, decoding, and the reason codes of what cannot be decoded. Does not: Kafka, tables.
"""

from __future__ import annotations

from typing import Final

import msgspec

from liq_pipeline.bus.topics import RECORD_TYPE_HEADER
from liq_pipeline.domain.records import Heartbeat, Record, Watermark

WATERMARK: Final = "watermark"
HEARTBEAT: Final = "heartbeat"

# Decimals as strings: a JSON number would pass through a binary float in most readers.
_encoder = msgspec.json.Encoder(decimal_format="string")


def encode(message: Record | Watermark) -> bytes:
    """The JSON bytes of a message."""
    return _encoder.encode(message)


def headers_of(message: Record | Watermark) -> list[tuple[str, bytes]]:
    """The Kafka headers that tell a control message from a record; empty for a record."""
    if isinstance(message, Watermark):
        return [(RECORD_TYPE_HEADER, WATERMARK.encode())]
    if isinstance(message, Heartbeat):
        return [(RECORD_TYPE_HEADER, HEARTBEAT.encode())]
    return []
