"""Dagster's side of the program: what exists, what depends on what, what runs when.

Belongs here: assets, jobs, checks, sensors, schedules, resources. Does not: work. Each function here calls a plain
one elsewhere that a test can call without Dagster. Modules with ops or assets do without postponed annotations, because
Dagster reads the annotations themselves. Nothing imports this package but liq_pipeline/definitions.py.
"""
