"""The lines of a recorded file, one at a time and each bounded, whatever the file unpacks to.

Belongs here: reading lines, plain or gzip. Does not: what a line says (the formats beside this module).

A recording may come from anyone, and a gzip of a few megabytes can hold a single line of many gigabytes.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LONGEST_LINE_BYTES: Final = 128 * 1024 * 1024
"""A line holds at most one answer of a source: 64 MB (MAX_BODY_BYTES), a third more where its bytes are encoded."""


class DamagedFileError(ValueError):
    """The file cannot be read further; the lines before were given. The message says after which line and why."""


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of a plain or gzip file. Raises DamagedFileError where it ends wrongly or a line is too
    long: a program that was killed leaves its last gzip member unfinished."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while raw := file.readline(LONGEST_LINE_BYTES + 1):
                if len(raw) > LONGEST_LINE_BYTES:
                    limit = f"{LONGEST_LINE_BYTES // 2**20} MB"
                    raise DamagedFileError(f"after line {number}: a line of more than {limit}, which no recording has")
                number += 1
                yield number, raw
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedFileError(f"after line {number}: {error}") from error
