"""Roll-ups: `<table>_1m`, `_5m` and `_1h`, on every edition.

Lives here: definitions.py (what a bucket holds: a new column of a roll-up is added there), upkeep.py (keeping them up
to date where the edition does not). Does not: continuous aggregates of the community edition
(store/schema/community.py).
"""
