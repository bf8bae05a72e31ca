"""Kafka: topics, codec, producer, reader. Nothing here knows a table or a score."""
