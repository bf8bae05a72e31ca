"""The live lane: what runs every few seconds.

Lives here: ingest.py (polling), due.py (whether a tick is due, asked of the tables), tick.py (the tick as assets and
checks), alerts.py (sending what it decided), levels.py (the liquidation map), handover.py (one run started from
inside another). Does not: the work of a tick (pipeline/tick.py).
"""
