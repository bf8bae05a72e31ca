"""Deciding what is worth saying. Pure: state and one scored point in, next state, changes and messages out.

Lives here: state.py (alerts, the book of them, what comes out), policy.py (the settings as numbers: a new rule begins
there), levels.py (what each rule reads from a point), machine.py (what moves an alert). Does not: words (telling/),
rows (alerting/book.py).
"""
