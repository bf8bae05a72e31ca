-- What one foreign client on Kafka can do to us is bounded: a dead letter keeps the start of what is too large, and a
-- partition that somebody's open transaction holds is known as such.

ALTER TABLE dead_letters ADD COLUMN is_cut boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN dead_letters.is_cut IS 'only the first 64 KiB of key or value are kept, or no headers: it is never sent again';

CREATE TABLE held_partitions (
    consumer text NOT NULL,
    cluster_id text NOT NULL,
    topic text NOT NULL,
    kafka_partition smallint NOT NULL,
    stable_offset bigint NOT NULL,
    waiting_messages bigint NOT NULL,
    held_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    held_by text,
    PRIMARY KEY (consumer, cluster_id, topic, kafka_partition)
);
COMMENT ON TABLE held_partitions IS
    'Partitions of Kafka in which a transaction is open: what lies behind its first message cannot be read until it ends.';
COMMENT ON COLUMN held_partitions.consumer IS 'who reads, as in consumer_offsets';
COMMENT ON COLUMN held_partitions.cluster_id IS 'the Kafka cluster id';
COMMENT ON COLUMN held_partitions.topic IS 'the topic, without the prefix';
COMMENT ON COLUMN held_partitions.kafka_partition IS 'the partition';
COMMENT ON COLUMN held_partitions.stable_offset IS 'the first offset that cannot be read';
COMMENT ON COLUMN held_partitions.waiting_messages IS 'offsets from there to the end of the log, when last seen';
COMMENT ON COLUMN held_partitions.held_since IS 'when it was first seen to stand at this offset';
COMMENT ON COLUMN held_partitions.seen_at IS 'when it was last seen so';
COMMENT ON COLUMN held_partitions.held_by IS 'the transaction, as Kafka names it; NULL where it does not say';

-- The clock of a played world: the least watermark over its partitions. In a simulated one a partition that has been
-- held for more than 5 s is left out, as a venue that fell silent is: one foreign transaction must not stop the rest.
-- A recording waits for all of it, since its scores are to be the same however it was played.
CREATE VIEW world_clocks AS
SELECT w.world,
       count(*) AS partitions,
       min(m.watermark) AS landed_to,
       coalesce(min(m.watermark) FILTER (WHERE h.topic IS NULL OR w.kind <> 'simulated'), min(m.watermark)) AS clock
FROM worlds AS w
JOIN watermarks AS m ON m.world = w.world
LEFT JOIN (
    SELECT DISTINCT topic, kafka_partition FROM held_partitions
    WHERE consumer = 'landing' AND held_since < clock_timestamp() - interval '5 seconds'
      AND seen_at > clock_timestamp() - interval '1 minute'
) AS h ON h.topic = m.topic AND h.kafka_partition = m.kafka_partition
GROUP BY w.world;
COMMENT ON VIEW world_clocks IS 'How far each played world has come, by the watermarks in its partitions.';
COMMENT ON COLUMN world_clocks.world IS 'the world';
COMMENT ON COLUMN world_clocks.partitions IS 'partitions that have brought a watermark; 18 when all have';
COMMENT ON COLUMN world_clocks.landed_to IS 'the least watermark: everything up to here has landed';
COMMENT ON COLUMN world_clocks.clock IS 'the least watermark of the partitions that are not held: what is scored up to';
