"""Pages as people would have had them, held against the cascades that happened: the contracts' desk figures.

Lives here: desk.py (pages out of the alert machine, their verdicts and shares), under_way.py (pages that say a cascade
has begun), rules.py (which rules a report judges, and at which ranks), outcomes.py (the table `alert_outcomes`). Does
not: the machine itself (alerting/deciding/), or the web page that shows the figures.
"""
