"""Servers that the embedded installation brings along: what they need to exist, to start and to stop.

Lives here: postgres.py with database_roles.py and users.py, kafka.py with kafka_jars.py and java.py, dagster_home.py,
dagster_storage.py and guarded_webserver.py (Dagster's UI behind a guard). Does not: watching them
(runtime/supervisor.py), topics (bus/) or schema (store/schema/).
"""
