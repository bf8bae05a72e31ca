"""score_version: one short name for everything a score depends on besides its data.

Belongs here: the hash and its parts. Does not: data, worlds, times.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from liq_pipeline.scoring.under_way.rules import shipped_under_way_model
from liq_pipeline.settings import Settings

SCORING_CODE_VERSION: Final = 3
"""Raised with every change of scoring/ that can change a number; tests hold the numbers of worked cases against it."""


def score_version(settings: Settings, model_id: str | None) -> str:
    """12 hex digits over the code version, the settings that scores and severities read, and the model."""
    shipped = shipped_under_way_model()
    parts = {
        "code": SCORING_CODE_VERSION,
        "risk": settings.risk.model_dump(mode="json"),
        "pressure": settings.pressure.model_dump(mode="json"),
        "severity": settings.severity.model_dump(mode="json"),
        "model": model_id,
        "under_way": None if shipped is None else shipped.model_id,
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
