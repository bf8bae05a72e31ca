"""Logs of the children: one file each, kept small.

Belongs here: rotation. Does not: what is logged.

The children write to an append-only file of their own rather than into a pipe to the supervisor, so that a killed
supervisor breaks nobody's output. Rotation therefore copies the file and empties it in place: whoever has it open in
append mode goes on at its new end. Lines written between the two steps are lost, a price for logs only.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

LARGEST_BYTES: Final = 16 * 1024 * 1024
KEPT: Final = 3


def rotate(path: Path, *, largest_bytes: int = LARGEST_BYTES, kept: int = KEPT) -> bool:
    """If the log is larger than largest_bytes, move its content to <log>.1 (older ones up to .kept). True if so."""
    try:
        if path.stat().st_size <= largest_bytes:
            return False
    except FileNotFoundError:
        return False
    for number in range(kept - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
    return True
