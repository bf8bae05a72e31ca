"""The domain: what everything else speaks of. No I/O, no clock, no Dagster; time is always an argument.

Lives here: records.py (the six record types with their units: a new column of a record begins there), worlds.py (real,
simulated, recorded, and what each expects), wallets.py (whose wallet is whose; the lists lie in labels/), chains.py
(the chains that are followed, their tokens), tron_address.py (its two forms), symbols.py (coins by the names that
people write). Does not: JSON (bus/codec.py), tables (store/), any score.
"""
