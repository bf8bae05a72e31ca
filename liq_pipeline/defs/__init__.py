"""Dagster's side of the program: what exists, what depends on what, what runs when.

Lives here: live/ (every few seconds), heavy/ (what may take minutes), upkeep/ (checks and housekeeping), sensors.py and
schedules.py (what asks for runs), keys.py (names of assets), lineage.py (what others fill: sources, topics,
dashboards), resources.py (what runs need from outside), failures.py (a failed run's one sentence), attached.py (whether
there is an installation to work on). Does not: work. Each function here calls a plain one elsewhere that a test can
call without Dagster. Modules with ops or assets do without postponed annotations, because Dagster reads the annotations
themselves. Nothing imports this package but liq_pipeline/definitions.py.
"""
