"""Topics on the cluster: making them what topics.py says.

Belongs here: creating and checking topics. Does not: their names and numbers (topics.py), or messages.
"""

from __future__ import annotations

from typing import Any, Final

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from liq_pipeline.bus.topics import IN_TOPICS, OUT_TOPICS, PARTITIONS, RETENTION_DAYS, wire_name
from liq_pipeline.errors import LiqError

_DAY_MS: Final = 24 * 3600 * 1000
TOPIC_CONFIG: Final[dict[str, str]] = {
    "message.timestamp.type": "LogAppendTime",
    "retention.ms": str(RETENTION_DAYS * _DAY_MS),
    "cleanup.policy": "delete",
}


class TopicsError(LiqError):
    """The topics cannot be made or are not as they must be; one sentence says why and what to do."""


def ensure_topics(bootstrap_servers: str, prefix: str = "", *, timeout_seconds: float = 30.0) -> list[str]:
    """Create the topics that are missing and correct the settings of the others; return what was done, in words.

    Idempotent, and safe for several processes at once. The replication factor is the cluster's default.
    Raises TopicsError if the cluster does not answer, refuses, or has a topic with fewer partitions than promised.
    """
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap_servers,
            client_id="liq-topics",
            bootstrap_timeout_ms=int(timeout_seconds * 1000),
            request_timeout_ms=int(timeout_seconds * 1000),
        )
    except KafkaError as error:
        raise TopicsError(f"Kafka at {bootstrap_servers} does not answer: {error}") from error
    try:
        return _ensure(admin, prefix)
    except KafkaError as error:
        raise TopicsError(f"Kafka at {bootstrap_servers} refused to set up the topics: {error}") from error
    finally:
        admin.close()


def _ensure(admin: Any, prefix: str) -> list[str]:
    names = [wire_name(topic, prefix) for topic in (*IN_TOPICS, *OUT_TOPICS)]
    existing = set(admin.list_topics())
    missing = [name for name in names if name not in existing]
    done = []
    if missing:
        wanted = {name: {"num_partitions": PARTITIONS, "configs": TOPIC_CONFIG} for name in missing}
        try:
            admin.create_topics(wanted)
        except TopicAlreadyExistsError:
            # Another process was faster with at least one of them; what it left out is created now.
            _create_one_by_one(admin, wanted)
        admin.wait_for_topics(missing)
        done += [f"created {name}" for name in missing]
    for topic in admin.describe_topics(names):
        count = len(topic["partitions"])
        if count < PARTITIONS:
            raise TopicsError(
                f"topic {topic['name']} has {count} partitions and needs {PARTITIONS}: add some "
                "(kafka-topics --alter --partitions) or choose another LIQ_KAFKA_TOPIC_PREFIX"
            )
    return done + _correct_configs(admin, [name for name in names if name in existing])


def _create_one_by_one(admin: Any, wanted: dict[str, dict[str, Any]]) -> None:
    for name, options in wanted.items():
        try:
            admin.create_topics({name: options})
        except TopicAlreadyExistsError:
            continue


def _correct_configs(admin: Any, names: list[str]) -> list[str]:
    """Topics made by a broker's auto-creation, or by hand, keep the wrong clock: LogAppendTime is what we rely on."""
    if not names:
        return []
    found = admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in names], config_filter="all"
    )["topic"]
    changes = []
    for name in names:
        wrong = {key: value for key, value in TOPIC_CONFIG.items() if found[name][key]["value"] != value}
        if wrong:
            changes.append(ConfigResource(ConfigResourceType.TOPIC, name, wrong))
    if not changes:
        return []
    for name, answer in admin.alter_configs(changes)["topic"].items():
        if answer != "OK":
            raise TopicsError(f"the settings of topic {name} could not be corrected: {answer}")
    return [f"corrected {', '.join(sorted(change.configs))} of {change.name}" for change in changes]
