"""Landing: from Kafka to the tables, each message exactly once.

A batch walks through the modules in this order: lander.py (reads it; others import this one), batch.py (decodes it),
transaction.py (rows, rejects and next offsets in one transaction), offsets.py (where landing stands in each log),
held.py (which of them cannot be read to the end),
tables.py (how each record becomes a row), write.py (what became of every row), dead_letters.py (what did not fit).
Does not: speak to Kafka (bus/) or score anything. A new column of a record is added in tables.py.
"""
