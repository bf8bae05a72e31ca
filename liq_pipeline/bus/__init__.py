"""Kafka. Nothing here knows a table or a score.

Lives here: topics.py (names, keys, partitions: a new topic begins there), admin.py (making them so), codec.py (JSON,
typed and checked), producer.py (what was acknowledged is never lost), reader.py (from stated offsets), unpack.py (from
fetched bytes to messages, at landing speed) over uncompress.py (within a bound), held.py (whose open transaction holds
a partition), size.py. Does not: what a message becomes in a table (store/landing/).
"""
