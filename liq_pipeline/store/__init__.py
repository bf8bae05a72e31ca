"""The store: everything that is a row, and the only place that knows tables.

Lives here: landing, the schema on each edition, what a score reads and writes, what is known to be missing. Does not:
formulas (scoring/), alerts (alerting/book.py keeps its own tables), or when anything happens (pipeline/, defs/).

connection.py opens connections, columns.py moves whole columns to and from numpy, worlds.py, scores.py and levels.py
are the tables of those names. Then by what you are after:
  landing/       from Kafka to the tables, each message exactly once
  inputs/        what was known at given times, and who was expected to say it
  lookback/      bars and daily references that are kept, so that a tick need not build them
  rollups/       <table>_1m, _5m, _1h
  completeness/  holes, and what has been loaded
  schema/        migrations, editions, roles, retention, sizes
"""
