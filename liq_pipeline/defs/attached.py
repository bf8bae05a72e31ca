"""Whether these definitions have an installation to work on, said when a person loads them without one.

Belongs here: one sentence. Does not: finding the addresses (runtime/endpoints.py).

`dagster dev` in a checkout shows the graph as it is, but no run of it could reach a database: without this sentence the
first thing a newcomer saw was a failed run.
"""

from __future__ import annotations

import logging
import os

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.endpoints import resolve
from liq_pipeline.settings import get_settings

log = logging.getLogger("dagster.liq_pipeline")


def say_if_detached() -> None:
    """Under `dagster dev`: a warning if there is no installation, with what to do about it."""
    if not os.environ.get("DAGSTER_IS_DEV_CLI"):
        return
    try:
        resolve(get_settings())
    except LiqError as error:
        log.warning(
            "This shows the definitions only, nothing can run: %s. `make run` starts everything, its own Dagster among"
            ' it; `eval "$(liq env)"` attaches Dagster\'s tools to it (docs/dagster.md).',
            error,
        )
