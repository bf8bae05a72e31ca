"""What keeps an installation healthy on a schedule.

Lives here: checks.py (thorough checks), maintenance.py (housekeeping), pruning.py (old runs in Dagster's own storage),
counting.py (runs counted before they go).
Does not: the questions that checks ask (operations/audits.py) or what retention deletes (store/schema/retention.py).
"""
