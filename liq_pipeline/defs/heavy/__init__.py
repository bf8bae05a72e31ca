"""The heavy lane: what may take minutes, and always lets the ticks go first.

Lives here: history.py (partitioned assets), archive_training.py (coins x quarters, and a model of them), healing.py,
evaluation.py (nightly figures, shadows, a weekly candidate). Does not: the work itself (pipeline/, evaluation/).
"""
