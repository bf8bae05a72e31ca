"""The heavy lane: what may take minutes, and always lets the ticks go first.

Lives here: history.py (partitioned assets), healing.py, evaluation.py (nightly figures, shadows, a weekly candidate).
Does not: the work itself (pipeline/, evaluation/).
"""
