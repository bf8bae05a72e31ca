"""What keeps an installation healthy on a schedule: thorough checks, housekeeping, pruning of Dagster's own storage.

Does not: the questions that checks ask (operations/audits.py) or what retention deletes (store/schema/retention.py).
"""
