"""Playing a world through Kafka: recorded and simulated records, at a chosen speed, so that nothing is ever missing.

Lives here: player.py (sending, watermarks, taking up again after a kill), playable.py (what it needs of a world). Does
not: the formats of recordings (recorded/) or the simulated market (simulated/).
"""
