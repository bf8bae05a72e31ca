"""Bytes from and to messages: JSON, typed and checked.

Belongs here: encoding, decoding, and the reason why a message cannot be believed. Does not: Kafka, tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from liq_pipeline.bus.topics import EVENT_TOPICS, RECORD_OF_TOPIC, RECORD_TYPE_HEADER
from liq_pipeline.domain.records import FUTURE_TOLERANCE, SCHEMA_VERSION, Heartbeat, Record, RecordError, Watermark

WATERMARK: Final = "watermark"
HEARTBEAT: Final = "heartbeat"

MAX_VALUE_BYTES: Final = 64 * 1024
"""Our largest message has 600 bytes. A valid one of megabytes would be kept whole in a row, and read back by ticks."""

Headers = Sequence[tuple[str, bytes | None]]

# Decimals as strings: a JSON number would pass through a binary float in most readers.
_encoder = msgspec.json.Encoder(decimal_format="string")
_decoders: Final = {topic: msgspec.json.Decoder(record) for topic, record in RECORD_OF_TOPIC.items()}
_heartbeat_decoder: Final = msgspec.json.Decoder(Heartbeat)
_watermark_decoder: Final = msgspec.json.Decoder(Watermark)
_LIMIT: Final = re.compile(r"^(Expected `(float|int|decimal)` (<|>)|Number out of range)")


class _Version(msgspec.Struct):
    schema_version: Any = None


_version_decoder: Final = msgspec.json.Decoder(_Version)


class DecodeError(ValueError):
    """A message that cannot land. `code` is short and stable, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


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


def decode(topic: str, value: bytes | None, headers: Headers, appended_at: datetime | None) -> Record | Watermark:
    """The message in these bytes, checked against itself and against the time the broker appended it.

    topic: the contract's name. appended_at: the broker's LogAppendTime (UTC), None where the broker gives none.
    Raises DecodeError with one of the codes empty_value, too_large, wrong_record_type, not_json, unknown_version,
    missing_field, impossible_number, invalid_field, or a code of RecordError.
    """
    if not value:
        raise DecodeError("empty_value", "the message has no value")
    if len(value) > MAX_VALUE_BYTES:
        raise DecodeError("too_large", f"the value has {len(value)} bytes; no message has more than {MAX_VALUE_BYTES}")
    decoder = _decoder_for(topic, headers) if headers else _decoders[topic]
    try:
        # msgspec looks at the text only of fields that it knows.
        if not value.isascii():
            value.decode()
        message: Record | Watermark = decoder.decode(value)
        message.check()
    except RecordError as error:
        raise DecodeError(error.code, str(error)) from error
    except msgspec.ValidationError as error:
        raise _explain(value, error) from error
    # Absurdly deep nesting ends in a RecursionError.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("not_json", f"the value is not JSON: {error}") from error
    if appended_at is not None:
        _refuse_future(message, appended_at)
    return message


def _refuse_future(message: Record | Watermark, appended_at: datetime) -> None:
    """Raise DecodeError for an event of the real world that lies after its own arrival in Kafka."""
    if isinstance(message, Watermark) or message.event_time <= appended_at:
        return
    if message.origin in ("live", "archive") and message.event_time > appended_at + FUTURE_TOLERANCE:
        raise DecodeError(
            "future_event",
            f"event_time {message.event_time.isoformat()} lies after its arrival in Kafka at {appended_at.isoformat()}",
        )


def _decoder_for(topic: str, headers: Headers) -> msgspec.json.Decoder[Any]:
    """The decoder that the header record_type asks for; other headers are other people's business."""
    kinds = [value for name, value in headers if name == RECORD_TYPE_HEADER]
    if not kinds:
        return _decoders[topic]
    kind = (kinds[-1] or b"").decode(errors="replace")
    if kind == WATERMARK:
        return _watermark_decoder
    if kind == HEARTBEAT:
        if topic in EVENT_TOPICS:
            return _heartbeat_decoder
        raise DecodeError("wrong_record_type", f"topic {topic} is no feed of events and has no heartbeats")
    raise DecodeError("wrong_record_type", f"header {RECORD_TYPE_HEADER} is {kind!r}, not {WATERMARK} or {HEARTBEAT}")


def _explain(value: bytes, error: msgspec.ValidationError) -> DecodeError:
    """The reason behind a validation error: another version's own shape must not be blamed on its fields."""
    text = str(error)
    try:
        version = _version_decoder.decode(value).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        version = None
    if version is not None and (version != SCHEMA_VERSION or isinstance(version, bool)):
        return DecodeError("unknown_version", f"schema_version is {version!r:.40}; this program knows {SCHEMA_VERSION}")
    if "missing required field" in text:
        return DecodeError("missing_field", text)
    if _LIMIT.match(text):
        return DecodeError("impossible_number", text)
    return DecodeError("invalid_field", text)
