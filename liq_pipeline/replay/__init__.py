"""One past day played again in a throw-away world, and the page that tells it (`liq replay`).

Lives here: replay.py (the way through: open it first), window.py (what is played), servers.py (a database and a Kafka
for one replay), play.py, story.py (what the page tells), charts.py, page.py; what_if.py and stored_what_if.py (the same
under other settings). Does not: formats of archives and recordings (sources/), or the ticks themselves
(pipeline/tick.py).
"""
