"""Topics on the cluster: making them what topics.py says.

Belongs here: creating and checking topics. Does not: their names and numbers (topics.py), or messages.
"""

from __future__ import annotations

import time
from typing import Any, Final

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from liq_pipeline.bus.topics import IN_TOPICS, OUT_TOPICS, PARTITIONS, RETENTION_DAYS, wire_name
from liq_pipeline.errors import LiqError

_SETTLE_SECONDS: Final = 10.0
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
        done += [f"created {name}" for name in _create(admin, missing)]
        admin.wait_for_topics(missing)
    for topic in admin.describe_topics(names):
        count = len(topic["partitions"])
        if count < PARTITIONS:
            raise TopicsError(
                f"topic {topic['name']} has {count} partitions and needs {PARTITIONS}: add some "
                "(kafka-topics --alter --partitions) or choose another LIQ_KAFKA_TOPIC_PREFIX"
            )
    return done + _correct_configs(admin, names)


def _create(admin: Any, names: list[str]) -> list[str]:
    """Create topics and return those that are new: another process may be at it too."""
    wanted = {name: {"num_partitions": PARTITIONS, "configs": TOPIC_CONFIG} for name in names}
    answer = admin.create_topics(wanted, raise_errors=False)
    created = []
    for topic in answer["topics"]:
        error = for_code(topic["error_code"])
        if error is NoError:
            created.append(topic["name"])
        elif error is not TopicAlreadyExistsError:
            raise error(topic["error_message"])
    return created


def _correct_configs(admin: Any, names: list[str]) -> list[str]:
    """Topics made by a broker's auto-creation, or by hand, keep the wrong clock: LogAppendTime is what we rely on."""
    wrong = _wrong_configs(admin, names)
    if not wrong:
        return []
    changes = [ConfigResource(ConfigResourceType.TOPIC, name, configs) for name, configs in wrong.items()]
    for name, answer in admin.alter_configs(changes)["topic"].items():
        if answer != "OK":
            raise TopicsError(f"the settings of topic {name} could not be corrected: {answer}")
    # A change is in force on a broker a moment after it was accepted.
    deadline = time.monotonic() + _SETTLE_SECONDS
    while _wrong_configs(admin, list(wrong)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"corrected {', '.join(sorted(configs))} of {name}" for name, configs in wrong.items()]


def _wrong_configs(admin: Any, names: list[str]) -> dict[str, dict[str, str]]:
    """topic -> the settings it must get, for the topics that need any."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found = admin.describe_configs(resources, config_filter="all")["topic"]
    wrong = {
        name: {key: value for key, value in TOPIC_CONFIG.items() if found[name][key]["value"] != value}
        for name in names
    }
    return {name: configs for name, configs in wrong.items() if configs}
