"""The commands of `liq`, a module a topic; the package's `cli` puts them together.

Lives here: arguments, printing, exit codes. running.py (up, collect, land, metrics), health.py (status, watch, doctor,
env), alerts.py, store.py (migrate, topics, roles, sql, score), backfill.py, gaps.py, levels.py, dead_letters.py,
evaluate.py, model.py, replay.py; shared.py is what all of them need. Does not: work; each command calls a plain
function of another room, and imports it inside itself so that `liq --help` answers at once.
"""
