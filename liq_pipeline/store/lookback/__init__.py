"""Look-back that is kept: bars of the 5-min grid and each day's references, built once and read by every tick.

Lives here: market_lookback.py, flow_lookback.py, warning_references.py (what the early warning compares with),
archive_bars.py (bars that archives complete), bar_cache.py (the last tick's bars in a file). Does not: how a bar is
computed from rows (store/inputs/as_known.py) or what a percentile is (scoring/references.py).
"""
