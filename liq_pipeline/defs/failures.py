"""A failing part ends its run with one sentence that a person can act on.

Belongs here: turning the program's own errors and those of its servers into Dagster failures. Does not: retries; the
next run, seconds later, is the retry.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from dagster import Failure

from liq_pipeline.errors import LiqError


@contextmanager
def in_one_sentence(doing: str) -> Iterator[None]:
    """Raise Failure for what can go wrong outside our code; bugs keep their traceback. doing: e.g. "The tick"."""
    try:
        yield
    except LiqError as error:
        raise Failure(f"{doing} stopped: {error}", allow_retries=False) from error
    except psycopg.Error as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise Failure(f"{doing} stopped: the database answered: {told}", allow_retries=False) from error
