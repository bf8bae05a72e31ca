"""Downloading files of a public archive: whole, as their checksum says, and again where that helps.

Belongs here: the zip and its .CHECKSUM beside it. Does not: which files there are or what they hold (binance.py).

The checksum is asked for first: it is a hundred bytes, and tells whether a file that was loaded before has been
corrected since. A download that does not match it is asked for once more, together with the checksum, because a file
may be replaced between the two requests.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from liq_pipeline.sources.access.http import (
    Answer,
    BadAnswerError,
    HttpClient,
    RejectedError,
    Request,
    SourceError,
    TransientError,
)

REQUEST_SECONDS: Final = 60.0
"""A month of 30-second samples is a few megabytes: the live polls' 2 s would cut it."""
ATTEMPTS: Final = 5
MAX_UNPACKED_BYTES: Final = 64 * 1024 * 1024
"""A day of metrics unpacks to 50 kB, a day of order-book depth to 3 MB. A zip can hold a thousand times what it weighs,
and what its directory declares is only a claim: what counts is what comes out."""
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The archive deflates. Python unpacks other methods in steps that have no bound."""
_LONGEST_WAIT_SECONDS: Final = 30.0
_CHECKSUM: Final = re.compile(r"^([0-9a-f]{64})\b", re.IGNORECASE)


class NotThereError(RejectedError):
    """The archive has no such file."""


class WrongChecksumError(SourceError):
    """The file is not what its checksum says. Nothing of it may be used."""


@dataclass(frozen=True)
class ArchiveFile:
    """A verified file. text: its one member, decoded."""

    checksum: str
    text: str


class ArchiveFiles:
    """The files of one archive below its base URL. Threads may share it."""

    def __init__(
        self,
        source: str,
        base_url: str,
        *,
        acquire: Callable[[], None] = lambda: None,
        cache: Path | None = None,
        wait: Callable[[float], None] | None = None,
    ) -> None:
        """acquire: called before every request, returns when it may be sent. cache: keep verified zips there, and use
        them where the archive cannot be reached. wait: how to wait between attempts, for tests."""
        self._source = source
        self._acquire = acquire
        self._cache = cache
        self._retry: dict[str, Any] = {} if wait is None else {"sleep": wait}
        self._http = HttpClient(source, base_url, request_seconds=REQUEST_SECONDS, classify=self._classify)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def fetch(self, path: str, known: str | None) -> ArchiveFile | None:
        """The file, or None if its checksum still is `known`.

        Raises NotThereError, WrongChecksumError, or another SourceError after several attempts.
        """
        cached = self._cached(path)
        for attempt in (1, 2):
            try:
                checksum = self._checksum(path)
            except TransientError:
                if cached is None:
                    raise
                return cached
            if checksum == known:
                return None
            if cached is not None and cached.checksum == checksum:
                return cached
            body = self._ask(Request(path, is_binary=True)).body
            found = hashlib.sha256(body).hexdigest()
            if found == checksum:
                self._keep(path, checksum, body)
                return ArchiveFile(checksum, self._unpack(path, body))
            if attempt == 2:
                break
        raise WrongChecksumError(
            self._source,
            f"{_name(path)} does not match its checksum (sha256 {found[:12]}…, its .CHECKSUM says {checksum[:12]}…): "
            "nothing of it was used; try again later, the archive may be replacing it",
        )

    def _checksum(self, path: str) -> str:
        text = self._ask(Request(f"{path}.CHECKSUM", is_text=True)).payload
        match = _CHECKSUM.match(str(text).strip())
        if match is None:
            raise BadAnswerError(self._source, f"{_name(path)}.CHECKSUM holds no sha256")
        return match[1].lower()

    def _ask(self, request: Request) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_attempt(ATTEMPTS),
            wait=_wait,
            reraise=True,
            **self._retry,
        )

        def once() -> Answer:
            self._acquire()
            return self._http.ask(request, attempts=1)

        return retrying(once)

    def _classify(self, status: int, _payload: Any) -> SourceError | None:
        return NotThereError(self._source, "there is no such file") if status == 404 else None

    def _unpack(self, path: str, body: bytes) -> str:
        try:
            with zipfile.ZipFile(io.BytesIO(body)) as file:
                members = file.infolist()
                if len(members) != 1:
                    raise BadAnswerError(self._source, f"{_name(path)} holds {len(members)} files, one was expected")
                if members[0].compress_type not in _METHODS or members[0].flag_bits & 1:
                    raise BadAnswerError(self._source, f"{_name(path)} is encrypted or packed in an unusual way")
                with file.open(members[0]) as member:
                    content = member.read(MAX_UNPACKED_BYTES + 1)
            if len(content) > MAX_UNPACKED_BYTES:
                raise BadAnswerError(
                    self._source,
                    f"{_name(path)} ({len(body):,} bytes) unpacks to more than {MAX_UNPACKED_BYTES // 2**20} MB: "
                    "no file of this archive does, nothing of it was used",
                )
            return content.decode("utf-8-sig")
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
            raise BadAnswerError(self._source, f"{_name(path)} cannot be unpacked ({error})") from error

    # -- the cache -------------------------------------------------------------------------------------------------

    def _cached(self, path: str) -> ArchiveFile | None:
        if self._cache is None:
            return None
        try:
            body = (self._cache / path.lstrip("/")).read_bytes()
        except OSError:
            return None
        return ArchiveFile(hashlib.sha256(body).hexdigest(), self._unpack(path, body))

    def _keep(self, path: str, checksum: str, body: bytes) -> None:
        if self._cache is None:
            return
        place = self._cache / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        # In one step: a process that dies here leaves no half file to be found later.
        part = place.with_name(f"{place.name}.{checksum[:8]}.part")
        part.write_bytes(body)
        part.replace(place)


def _wait(state: RetryCallState) -> float:
    """As long as the server asked for, else longer each time."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, SourceError) else None
    backoff = wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_SECONDS)(state)
    return max(asked or 0.0, backoff)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
