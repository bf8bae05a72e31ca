"""Under way: whether a cascade has begun, on which side, and whether it is over.

Lives here: excursions.py (how far the price has run and how much open interest went, from each start of the last 4 h),
rules.py (the plain rule, and the model that stands beside it), decide.py (both as what a signal holds). The model's
file is models/under_way.json of the room above. Does not: alert states (alerting/deciding/), fitting
(evaluation/models/), figures (evaluation/paging/). Pure: no I/O, no clock.
"""
