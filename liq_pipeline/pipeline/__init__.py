"""The pipeline's steps: what happens in which order, in which transaction. No Dagster here.

Lives here: tick.py (land, score, decide: open it first), points.py (scoring a batch from the store), rescore.py and
rescore_holes.py (new revisions), backfill.py (history through the same topics), healing.py (holes), levels.py
(liquidation maps), models.py (which model is in force), politeness.py (history lets the ticks go first). Does not:
formulas (scoring/), alert states (alerting/), when anything runs (defs/).
"""
