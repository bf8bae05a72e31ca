"""What a caller may ask: parameters of the path and the query, read strictly, and cursors.

Belongs here: parsing, bounds, one sentence for each that cannot be used. Does not: answering.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, get_args

from liq_pipeline.desk.read.scope import Scope
from liq_pipeline.desk.read.units import MOST_BUCKETS, STEP_SECONDS, Step
from liq_pipeline.errors import LiqError

LONGEST_QUERY: Final = 2_000
"""Characters of a query string."""
LONGEST_SPAN: Final = timedelta(days=366)
Kind = Literal["text", "time", "integer", "choice", "cursor", "uuid"]


class AskError(LiqError):
    """A question that cannot be answered as it is asked. status: of HTTP; code: one word for programs."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Parameter:
    """One parameter. place: path or query; bounds: least and most of an integer."""

    name: str
    means: str
    kind: Kind = "text"
    place: Literal["path", "query"] = "query"
    choices: tuple[str, ...] = ()
    default: Any = None
    bounds: tuple[int, int] = (1, 1)

    def read(self, text: str) -> Any:
        """The value, or AskError."""
        if self.kind == "time":
            return _instant(self.name, text)
        if self.kind == "integer":
            least, most = self.bounds
            if not text.isascii() or not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
                raise AskError(400, "bad_parameter", f"{self.name} must be a whole number from {least} to {most}")
            return int(text)
        if self.kind == "choice":
            if text not in self.choices:
                raise AskError(400, "bad_parameter", f"{self.name} must be one of {', '.join(self.choices)}")
            return text
        if self.kind == "uuid":
            try:
                return uuid.UUID(text)
            except ValueError as error:
                raise AskError(400, "bad_parameter", f"{self.name} must be an id such as /api/v1 gives") from error
        if self.kind == "cursor":
            return _decoded(text)
        if len(text) > 100 or not text.isprintable():
            raise AskError(400, "bad_parameter", f"{self.name} must be at most 100 printable characters")
        return text


WORLD: Final = Parameter("world", "another world than the active one, such as recorded/2025-10-10")
SYMBOL: Final = Parameter("symbol", "the coin, such as BTC", place="path")
FROM: Final = Parameter("from", "RFC 3339, UTC if it names no offset; a day before `to` otherwise", "time")
TO: Final = Parameter("to", "RFC 3339; the newest point otherwise", "time")
STEP: Final = Parameter("step", "length of a bucket; chosen by the span otherwise", "choice", choices=get_args(Step))
CURSOR: Final = Parameter("cursor", "next_cursor of the answer before: the page after it", "cursor")
ALERT: Final = Parameter("alert_id", "the alert's id", "uuid", "path")


def limit(default: int, most: int) -> Parameter:
    """How many rows an answer may have."""
    return Parameter("limit", f"rows of one answer, at most {most}", "integer", default=default, bounds=(1, most))


class Asked:
    """The parameters of one question, parsed, with the world it is about."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def known_symbol(self, of: Scope) -> str:
        """The symbol, in the world's spelling. AskError if the world does not watch it."""
        symbol = str(self._values["symbol"]).upper()
        if symbol not in of.symbols:
            raise AskError(404, "unknown_symbol", "this world does not watch that symbol; /api/v1/symbols lists them")
        return symbol

    def span(self, of: Scope, default: timedelta = timedelta(days=1)) -> tuple[datetime, datetime]:
        """(from, to): by default the last day up to the newest point."""
        last = self._values.get("to") or of.as_of or datetime.now(UTC)
        first = self._values.get("from") or last - default
        if first > last:
            raise AskError(400, "bad_parameter", "`from` must not be after `to`")
        if last - first > LONGEST_SPAN:
            raise AskError(400, "bad_parameter", "a span of more than 366 days is too long: ask for its parts")
        return first, last

    def step(self, first: datetime, last: datetime) -> Step:
        """The step asked for, if the span allows it, else the finest that does."""
        wanted: Step | None = self._values.get("step")
        if wanted is None:
            return step_for(first, last)
        if (last - first).total_seconds() / STEP_SECONDS[wanted] > MOST_BUCKETS:
            raise AskError(400, "bad_parameter", f"{MOST_BUCKETS} buckets are the most: a longer step or shorter span")
        return wanted


def step_for(first: datetime, last: datetime) -> Step:
    """The finest step that gives a chart at most some 720 points, hours beyond that."""
    seconds = (last - first).total_seconds()
    return "1m" if seconds <= 12 * 3600 else "5m" if seconds <= 2.5 * 86400 else "1h"


def read_all(parameters: tuple[Parameter, ...], path: Mapping[str, str], query: list[tuple[str, str]]) -> Asked:
    """All parameters of an endpoint. AskError for a wrong, a repeated or an unknown one: a typo must not be silent."""
    values: dict[str, Any] = {p.name: p.default for p in parameters}
    known = {p.name: p for p in parameters if p.place == "query"}
    for p in parameters:
        if p.place == "path":
            values[p.name] = p.read(path[p.name])
    seen = set()
    for name, text in query:
        if name not in known:
            allowed = ", ".join(known) or "none"
            raise AskError(
                400, "unknown_parameter", f"there is a parameter that this address does not know; it knows {allowed}"
            )
        if name in seen:
            raise AskError(400, "bad_parameter", f"{name} is given twice")
        seen.add(name)
        if text != "":
            values[name] = known[name].read(text)
    return Asked(values)


def cursor(*key: Any) -> str:
    """An opaque text that stands for the last row of a page."""
    plain = json.dumps([value.isoformat() if isinstance(value, datetime) else str(value) for value in key])
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def cursor_of(value: list[str] | None, *types: type) -> tuple[Any, ...] | None:
    """The key that a cursor stands for; types: datetime, uuid.UUID, int or str. AskError if it is not ours."""
    if value is None:
        return None
    if len(value) != len(types):
        raise _not_ours()
    try:
        return tuple(
            datetime.fromisoformat(text) if kind is datetime else kind(text)
            for text, kind in zip(value, types, strict=True)
        )
    except ValueError as error:
        raise _not_ours() from error


def _decoded(text: str) -> list[str]:
    try:
        plain = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError) as error:
        raise _not_ours() from error
    if not isinstance(plain, list) or not all(isinstance(part, str) and len(part) < 200 for part in plain):
        raise _not_ours()
    return plain


def _not_ours() -> AskError:
    return AskError(400, "bad_cursor", "the cursor is none of this address: begin without one")


def _instant(name: str, text: str) -> datetime:
    try:
        # A `+` that nobody encoded arrives as a space.
        value = datetime.fromisoformat(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text)
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise AskError(400, "bad_parameter", f"{name} must be a time such as 2025-10-10T20:00:00Z") from error
    if not 2000 <= value.year <= 2100:
        raise AskError(400, "bad_parameter", f"{name} must be a time such as 2025-10-10T20:00:00Z")
    return value
