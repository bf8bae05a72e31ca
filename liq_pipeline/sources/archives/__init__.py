"""History: public archive files, venues' REST history, and the chain by block range, in pieces that are loaded once.

Lives here: pieces.py (what an archive offers: a new one begins there), catalogue.py (which there are), binance.py with
files.py (zips with checksums), samples.py (what no record holds: premium, depth), venue.py, chain.py, day.py (one past
day as a world that can be played). Does not: what an installation missed of the last weeks (sources/history/), or
loading (pipeline/backfill.py).
"""
