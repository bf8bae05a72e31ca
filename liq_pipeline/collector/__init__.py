"""The always-on collector: streamed and listed liquidations into Kafka, none lost between socket and Kafka."""
