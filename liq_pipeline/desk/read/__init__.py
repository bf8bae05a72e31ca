"""Every number that the desk shows or answers, read once: pages, API, events and `liq mcp` call the same functions.

Lives here: one module a subject, each function one bounded query on a connection that it is given, each result a
plain struct with units in its names. units.py (what a number is), database.py (read-only connections with a time
limit), scope.py (which world, how far it is), market.py (every symbol now), points.py (scored points one by one),
series.py (charts, from the roll-ups), levels.py (the liquidation map), flows.py (stablecoins), alerts.py (the book
and its receipts), quality.py (evaluations), health.py (what `liq status` says). Does not: HTTP, words for people
(pages/), anything that writes.
"""
