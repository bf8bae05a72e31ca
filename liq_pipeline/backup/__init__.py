"""A copy of an installation in one folder, and the way back (`liq backup DIR`, `liq restore DIR`).

Lives here: make.py (a copy of a running installation: open it first), restore.py (into an empty home or server),
manifest.py (what is in a copy, with checksums; written last, so that one that was cut short has none), programs.py
(pg_dump and pg_restore), home_files.py (which files of a home are kept). Does not: schedules (docs/operations.md), or
copies of Kafka's log: what Kafka had acknowledged is landed before the copy is taken.
"""
