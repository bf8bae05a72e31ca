-- The state of the live sources: what is due, what each venue lists, what was spent of each budget, which blocks were read.
-- Belongs here: state that polls, collectors and backfills share across processes. Does not: observations (0001).

CREATE TABLE poll_state (
    source text NOT NULL, feed text NOT NULL, symbol text NOT NULL DEFAULT '',
    next_due     timestamptz NOT NULL,
    last_attempt timestamptz NOT NULL,
    last_success timestamptz,
    failures     integer NOT NULL DEFAULT 0,
    last_error   text,
    PRIMARY KEY (source, feed, symbol)
);
COMMENT ON TABLE poll_state IS 'When each feed is due again. symbol is empty for a feed that brings all symbols at once. The row source, ''*'' is the source as a whole: its next_due lies ahead while the source refuses us.';

CREATE TABLE venue_instruments (
    venue text NOT NULL, symbol text NOT NULL,
    native_symbol text,
    coins_per_unit double precision,
    units_per_contract double precision,
    funding_interval_hours double precision,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (venue, symbol)
);
COMMENT ON TABLE venue_instruments IS 'How each venue names and counts a coin''s perpetual. native_symbol NULL: the venue does not list it.';
COMMENT ON COLUMN venue_instruments.coins_per_unit IS '1000 where the venue quotes 1000PEPE; prices are divided by it, quantities multiplied';
COMMENT ON COLUMN venue_instruments.units_per_contract IS 'venue units per contract, for venues that count contracts; 1 elsewhere';

CREATE TABLE request_budgets (
    scope text PRIMARY KEY,
    spent jsonb NOT NULL DEFAULT '{}',
    blocked_until timestamptz,
    blocked_reason text,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE request_budgets IS 'One row per metered scope of a venue. spent: {slice of the window: cost}. A row lock makes all processes share one limit.';

CREATE TABLE chain_blocks (
    chain text NOT NULL, block_number bigint NOT NULL, block_hash text NOT NULL,
    block_time  timestamptz NOT NULL,
    is_canonical boolean NOT NULL DEFAULT true,
    read_at     timestamptz NOT NULL,
    orphaned_at timestamptz,
    PRIMARY KEY (chain, block_hash)
);
CREATE INDEX chain_blocks_number ON chain_blocks (chain, block_number);
COMMENT ON TABLE chain_blocks IS 'The newest blocks whose transfers were sent to Kafka, by the hash they had: where reading goes on, and how a re-org is seen. Not complete: a block without a transfer that is kept may be absent.';
