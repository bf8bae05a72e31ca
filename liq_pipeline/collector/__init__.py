"""The always-on collector: streamed and listed liquidations into Kafka, none lost between socket and Kafka.

collect.py is `liq collect` and starts the rest: streams.py (one websocket, kept alive), rest_events.py (lists beside
them), buffer.py (waiting for Kafka), sender.py (acknowledged, with heartbeats), coverage.py (up to when each venue was
read). Does not: what a venue's frame means (sources/live/).
"""
