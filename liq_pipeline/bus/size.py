"""How much disk Kafka's log takes.

Belongs here: asking the brokers. Does not: keeping or judging the figure (store/schema/sizes.py, operations/growth.py).
"""

from __future__ import annotations

from kafka.admin import KafkaAdminClient


def log_bytes(bootstrap_servers: str) -> int:
    """Bytes of all partitions of all topics on all brokers, replicas counted each. KafkaError if none answers."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers, client_id="liq-size")
    try:
        return sum(
            partition["partition_size"]
            for broker in admin.describe_log_dirs()
            for directory in broker["log_dirs"]
            for topic in directory["topics"]
            for partition in topic["partitions"]
        )
    finally:
        admin.close()
