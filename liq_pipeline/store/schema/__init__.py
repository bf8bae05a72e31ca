"""The schema and what keeps it: migrations, TimescaleDB editions, roles, retention, sizes.

Lives here: migrations.py (runs sql/ in order), editions.py and community.py (what the schema gains where TimescaleDB
is), policies.py (whether TimescaleDB does its part), roles.py (who may do what), retention.py, sizes.py. Does not: the
SQL itself (sql/), or the embedded server (runtime/servers/postgres.py).
"""
