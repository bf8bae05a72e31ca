"""Writes the snapshot of the API's description, when a change of it is meant.

python -m liq_pipeline_tests.desk.snapshot
"""

from __future__ import annotations

import json
from pathlib import Path

from liq_pipeline.desk.api.openapi import document

if __name__ == "__main__":
    Path(__file__).with_name("openapi.json").write_text(json.dumps(document(), indent=1, sort_keys=True) + "\n")
