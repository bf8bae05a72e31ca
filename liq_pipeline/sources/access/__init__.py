"""How a source is asked, whichever it is: bounded HTTP, request budgets, and what is noted of each answer.

Lives here: http.py (one outcome for everything that can go wrong), limits.py (budgets as data, shared by all
processes), raw_log.py (answers kept word for word), listing.py and probe.py (asking outside a round), turns.py (stream
or list, where both tell of the same orders), source_status.py (the table `source_status`). Does not: any venue's
endpoints (live/), or when something is due (polling/).
"""
