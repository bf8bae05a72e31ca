"""One polling round: what is due is asked at once, within a bound, and sent to Kafka.

A round walks through the modules in this order: state.py (what is due, what each venue lists), plan.py (which requests
the budgets allow), ask.py (all at once until the deadline) with flows.py beside it (the chain's part), outcome.py
(records, and when each feed is asked again); round.py holds them together and is what others import. Does not: parse an
answer (live/), decide when rounds happen (defs/live/ingest.py).
"""
