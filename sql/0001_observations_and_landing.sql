-- Observations as they arrived, and the bookkeeping that lands each of them exactly once.
-- Belongs here: what Kafka brought, what did not fit, and where landing stands.
-- Does not: anything computed from it (0002), alerts (0003), evaluation (0004), hypertables (store/schema/editions.py).
--
-- Provenance on every observation: world, origin, event_time (when it was true, by the venue), received_at (when a
-- system of ours got it), known_at (when a live collector could have had it; the only time a score filters on),
-- landed_at (database clock; never an input to a score), and the Kafka coordinates. The topic is the table's name.

CREATE TABLE kafka_clusters (
    cluster_no  smallint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    cluster_id  text NOT NULL UNIQUE,
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE kafka_clusters IS 'Short numbers for Kafka cluster ids, so that each row carries two bytes instead of 22.';

CREATE TABLE worlds (
    world         text PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('real', 'simulated', 'recorded')),
    is_active     boolean NOT NULL DEFAULT false,
    market_step_seconds integer NOT NULL CHECK (market_step_seconds > 0),
    flows_step_seconds  integer NOT NULL CHECK (flows_step_seconds > 0),
    manifest      jsonb NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    first_time    timestamptz,
    last_time     timestamptz
);
CREATE UNIQUE INDEX worlds_one_active ON worlds (is_active) WHERE is_active;
COMMENT ON TABLE worlds IS 'One row per world. manifest: {record type: {"venues": [..], "cadence_seconds": n}}, the expected venues; symbols. first_time/last_time: the span a recording covers.';

CREATE TABLE prices (
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL, event_time timestamptz NOT NULL,
    price_usd        double precision NOT NULL,
    volume_24h_usd   double precision,
    market_cap_usd   double precision,
    origin text NOT NULL, event_time_source text NOT NULL,
    received_at timestamptz NOT NULL, known_at timestamptz NOT NULL, landed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kafka_cluster smallint NOT NULL, kafka_partition smallint NOT NULL, kafka_offset bigint NOT NULL,
    PRIMARY KEY (world, symbol, venue, event_time)
);

CREATE TABLE funding_rates (
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL, kind text NOT NULL CHECK (kind IN ('predicted', 'settled')),
    event_time timestamptz NOT NULL,
    rate             double precision NOT NULL,
    interval_hours   double precision NOT NULL,
    rate_per_8h      double precision NOT NULL,
    next_funding_time timestamptz,
    mark_price_usd   double precision,
    origin text NOT NULL, event_time_source text NOT NULL,
    received_at timestamptz NOT NULL, known_at timestamptz NOT NULL, landed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kafka_cluster smallint NOT NULL, kafka_partition smallint NOT NULL, kafka_offset bigint NOT NULL,
    PRIMARY KEY (world, symbol, venue, kind, event_time)
);
COMMENT ON COLUMN funding_rates.rate IS 'fraction per interval (0.0001 = 0.01 %)';

CREATE TABLE open_interest (
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL, event_time timestamptz NOT NULL,
    open_interest_base double precision NOT NULL,
    open_interest_usd  double precision,
    origin text NOT NULL, event_time_source text NOT NULL,
    received_at timestamptz NOT NULL, known_at timestamptz NOT NULL, landed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kafka_cluster smallint NOT NULL, kafka_partition smallint NOT NULL, kafka_offset bigint NOT NULL,
    PRIMARY KEY (world, symbol, venue, event_time)
);

CREATE TABLE long_short_ratio (
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('accounts', 'top_accounts', 'top_positions', 'taker')),
    period_minutes integer NOT NULL, event_time timestamptz NOT NULL,
    long_share       double precision NOT NULL,
    short_share      double precision NOT NULL,
    ratio            double precision NOT NULL,
    origin text NOT NULL, event_time_source text NOT NULL,
    received_at timestamptz NOT NULL, known_at timestamptz NOT NULL, landed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kafka_cluster smallint NOT NULL, kafka_partition smallint NOT NULL, kafka_offset bigint NOT NULL,
    PRIMARY KEY (world, symbol, venue, kind, period_minutes, event_time)
);

CREATE TABLE liquidations (
    world text NOT NULL, venue text NOT NULL, symbol text NOT NULL, event_id text NOT NULL, event_time timestamptz NOT NULL,
    liquidated_side  text NOT NULL CHECK (liquidated_side IN ('long', 'short')),
    price_usd        double precision NOT NULL,
    quantity_base    double precision NOT NULL,
    notional_usd     double precision NOT NULL,
    is_sample        boolean NOT NULL,
    source_topic     text NOT NULL,
    origin text NOT NULL, event_time_source text NOT NULL,
    received_at timestamptz NOT NULL, known_at timestamptz NOT NULL, landed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kafka_cluster smallint NOT NULL, kafka_partition smallint NOT NULL, kafka_offset bigint NOT NULL,
    PRIMARY KEY (world, symbol, venue, event_time, event_id)
);
COMMENT ON COLUMN liquidations.liquidated_side IS 'the POSITION that was closed by force, whatever side the venue reports';
COMMENT ON COLUMN liquidations.is_sample IS 'true where the venue throttles its feed: sums are lower bounds';

CREATE TABLE stablecoin_flows (
    world text NOT NULL, chain text NOT NULL, token text NOT NULL, tx_hash text NOT NULL, log_index integer NOT NULL,
    block_hash text NOT NULL, event_time timestamptz NOT NULL,
    block_number     bigint NOT NULL,
    is_canonical     boolean NOT NULL,
    orphaned_known_at timestamptz,
    from_address     text NOT NULL,
    to_address       text NOT NULL,
    amount           numeric NOT NULL,
    from_entity      text,
    to_entity        text,
    direction        text NOT NULL CHECK (direction IN ('inflow', 'outflow', 'internal', 'inter_exchange', 'mint', 'burn', 'other')),
    label_version    text NOT NULL,
    venue text NOT NULL,
    origin text NOT NULL, event_time_source text NOT NULL,
    received_at timestamptz NOT NULL, known_at timestamptz NOT NULL, landed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kafka_cluster smallint NOT NULL, kafka_partition smallint NOT NULL, kafka_offset bigint NOT NULL,
    PRIMARY KEY (world, chain, tx_hash, log_index, block_hash, event_time)
);
CREATE INDEX stablecoin_flows_time ON stablecoin_flows (world, event_time);
COMMENT ON COLUMN stablecoin_flows.orphaned_known_at IS 'when a re-org was known to have removed this block (known_at of the mark); NULL while canonical';
COMMENT ON COLUMN stablecoin_flows.direction IS 'as first seen; scoring derives it anew from the labels known at T';

CREATE TABLE heartbeats (
    world text NOT NULL, topic text NOT NULL, venue text NOT NULL, event_time timestamptz NOT NULL,
    origin text NOT NULL,
    received_at timestamptz NOT NULL, known_at timestamptz NOT NULL, landed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kafka_cluster smallint NOT NULL, kafka_partition smallint NOT NULL, kafka_offset bigint NOT NULL,
    PRIMARY KEY (world, topic, venue, event_time)
);
COMMENT ON TABLE heartbeats IS 'A feed of events (liquidations, flows) had been read completely up to event_time: this is how an empty hour is told from a silent source.';

-- Archive rows that landed lately, found at once: they warm the look-back (store/lookback/market_lookback.py). Empty for live rows.
CREATE INDEX prices_archive ON prices (world, landed_at) WHERE origin = 'archive';
CREATE INDEX funding_rates_archive ON funding_rates (world, landed_at) WHERE origin = 'archive';
CREATE INDEX open_interest_archive ON open_interest (world, landed_at) WHERE origin = 'archive';
CREATE INDEX long_short_ratio_archive ON long_short_ratio (world, landed_at) WHERE origin = 'archive';
CREATE INDEX liquidations_archive ON liquidations (world, landed_at) WHERE origin = 'archive';

CREATE TABLE watermarks (
    world text NOT NULL, topic text NOT NULL, kafka_partition smallint NOT NULL,
    watermark timestamptz NOT NULL,
    PRIMARY KEY (world, topic, kafka_partition)
);
COMMENT ON TABLE watermarks IS 'Recorded and simulated worlds: every record with known_at <= watermark has landed from this partition. The clock of such a world is the minimum over all its partitions.';

CREATE TABLE consumer_offsets (
    consumer text NOT NULL, cluster_id text NOT NULL, topic text NOT NULL, kafka_partition smallint NOT NULL,
    topic_id         text NOT NULL,
    next_offset      bigint NOT NULL,
    landed_total     bigint NOT NULL DEFAULT 0,
    duplicate_total  bigint NOT NULL DEFAULT 0,
    conflict_total   bigint NOT NULL DEFAULT 0,
    dead_total       bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, cluster_id, topic, kafka_partition)
);
COMMENT ON COLUMN consumer_offsets.cluster_id IS 'the Kafka cluster id; with ~2, ~3 ... behind it where a topic was made anew in the same cluster, because its offsets began again';
COMMENT ON COLUMN consumer_offsets.topic_id IS 'the topic''s own id in its cluster: tells a topic that was deleted and made anew';

CREATE TABLE dead_letters (
    cluster_id text NOT NULL, topic text NOT NULL, kafka_partition smallint NOT NULL, kafka_offset bigint NOT NULL,
    appended_at  timestamptz,
    key_bytes    bytea,
    value_bytes  bytea,
    headers      jsonb NOT NULL DEFAULT '[]',
    reason_code  text NOT NULL,
    reason       text NOT NULL,
    dead_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    resubmitted_at timestamptz,
    PRIMARY KEY (cluster_id, topic, kafka_partition, kafka_offset)
);
CREATE INDEX dead_letters_time ON dead_letters (dead_at);

CREATE TABLE row_conflicts (
    conflict_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    table_name text NOT NULL, world text NOT NULL,
    row_key jsonb NOT NULL,
    kept jsonb NOT NULL,
    other jsonb NOT NULL,
    resolution text NOT NULL CHECK (resolution IN ('first_kept', 'archive_replaced', 'canonical_again')),
    cluster_id text NOT NULL, topic text NOT NULL, kafka_partition smallint NOT NULL, kafka_offset bigint NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (cluster_id, topic, kafka_partition, kafka_offset)
);
COMMENT ON COLUMN row_conflicts.other IS 'the version that is not in the table now';

CREATE TABLE ingest_gaps (
    gap_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    world text NOT NULL,
    source text NOT NULL,
    symbol text,
    from_time timestamptz, to_time timestamptz,
    from_offset bigint, to_offset bigint,
    cause text NOT NULL,
    is_permanent boolean NOT NULL DEFAULT false,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    healed_at timestamptz
);

CREATE TABLE source_status (
    source text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('starting', 'up', 'degraded', 'down', 'off')),
    reason text,
    last_success timestamptz, last_error timestamptz, last_error_text text,
    budget jsonb NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE wallet_labels (
    chain text NOT NULL, address text NOT NULL, list_version text NOT NULL,
    entity text NOT NULL, role text NOT NULL, source text NOT NULL,
    valid_from timestamptz, valid_to timestamptz,
    PRIMARY KEY (chain, address, list_version)
);
CREATE TABLE wallet_label_lists (
    list_version text PRIMARY KEY,
    known_at timestamptz NOT NULL
);
COMMENT ON TABLE wallet_label_lists IS 'When each label list came into force here: a score at T derives directions from the newest list with known_at <= T.';
