"""Liquidation levels: where the positions that the market has opened would be closed by force, as an estimate.

Lives here: method.py (the assumptions, as numbers with a version, and the files that hold them), cohorts.py (what was
opened when, at which price, and how much of it is still open), maps.py (from cohorts to notional by price), fuel.py
(what a person asks of a map: notional within 1, 3 and 5 %, the nearest cluster). Does not: reading bars or writing maps
(store/), fitting and judging (evaluation/levels/). Pure: no I/O, no clock. See docs/levels.md.
"""
