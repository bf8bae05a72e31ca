-- Roll-ups: one row per series and bucket of 1 minute, 5 minutes and 1 hour, for charts over days and years.
-- Belongs here: their tables, their views, and what finds the rows that changed. Does not: filling them
-- (store/rollups/upkeep.py), or anything a score reads: scores stand on the rows themselves.
--
-- The views <table>_1m, <table>_5m and <table>_1h are the contract. bucket is the bucket's first instant (UTC); _last is
-- the value of the newest event_time in it. A bucket without rows has no row: nothing is filled in.

CREATE TABLE rollup_progress (
    source_table text PRIMARY KEY,
    rolled_to timestamptz NOT NULL
);
COMMENT ON TABLE rollup_progress IS 'Per source table: rows written (landed_at, created_at) before this time are in the roll-ups.';

-- What changed since then is found by these; a BRIN index costs a few pages and fits rows that come in order.
CREATE INDEX prices_landed ON prices USING brin (landed_at);
CREATE INDEX funding_rates_landed ON funding_rates USING brin (landed_at);
CREATE INDEX open_interest_landed ON open_interest USING brin (landed_at);
CREATE INDEX long_short_ratio_landed ON long_short_ratio USING brin (landed_at);
CREATE INDEX liquidations_landed ON liquidations USING brin (landed_at);
CREATE INDEX stablecoin_flows_landed ON stablecoin_flows USING brin (landed_at);
CREATE INDEX liquidation_risk_created ON liquidation_risk USING brin (created_at);
CREATE INDEX stablecoin_pressure_created ON stablecoin_pressure USING brin (created_at);
CREATE INDEX signals_created ON signals USING brin (created_at);

-- An hour's rows of all series of a world, for re-building its buckets.
CREATE INDEX prices_event_time ON prices USING brin (event_time);
CREATE INDEX funding_rates_event_time ON funding_rates USING brin (event_time);
CREATE INDEX open_interest_event_time ON open_interest USING brin (event_time);
CREATE INDEX long_short_ratio_event_time ON long_short_ratio USING brin (event_time);
CREATE INDEX liquidations_event_time ON liquidations USING brin (event_time);

CREATE TABLE rollup_prices (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL,
    price_usd_first double precision NOT NULL,
    price_usd_high  double precision NOT NULL,
    price_usd_low   double precision NOT NULL,
    price_usd_last  double precision NOT NULL,
    samples integer NOT NULL,
    PRIMARY KEY (step, world, symbol, venue, bucket)
);

CREATE TABLE rollup_funding_rates (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL, kind text NOT NULL,
    rate_per_8h_high double precision NOT NULL,
    rate_per_8h_low  double precision NOT NULL,
    rate_per_8h_last double precision NOT NULL,
    samples integer NOT NULL,
    PRIMARY KEY (step, world, symbol, venue, kind, bucket)
);

CREATE TABLE rollup_open_interest (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL,
    open_interest_base_high double precision NOT NULL,
    open_interest_base_low  double precision NOT NULL,
    open_interest_base_last double precision NOT NULL,
    open_interest_usd_last  double precision,
    samples integer NOT NULL,
    PRIMARY KEY (step, world, symbol, venue, bucket)
);

CREATE TABLE rollup_long_short_ratio (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL, kind text NOT NULL, period_minutes integer NOT NULL,
    long_share_last double precision NOT NULL,
    ratio_last      double precision NOT NULL,
    samples integer NOT NULL,
    PRIMARY KEY (step, world, symbol, venue, kind, period_minutes, bucket)
);

CREATE TABLE rollup_liquidations (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL, liquidated_side text NOT NULL,
    notional_usd  double precision NOT NULL,
    quantity_base double precision NOT NULL,
    events integer NOT NULL,
    is_sample boolean NOT NULL,
    PRIMARY KEY (step, world, symbol, venue, liquidated_side, bucket)
);
COMMENT ON COLUMN rollup_liquidations.is_sample IS 'true if any event came from a throttled feed: the sums are lower bounds';

CREATE TABLE rollup_stablecoin_flows (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL, chain text NOT NULL, token text NOT NULL, direction text NOT NULL,
    amount numeric NOT NULL,
    transfers integer NOT NULL,
    PRIMARY KEY (step, world, chain, token, direction, bucket)
);
COMMENT ON TABLE rollup_stablecoin_flows IS 'Canonical transfers only; direction as first seen.';

CREATE TABLE rollup_liquidation_risk (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL, symbol text NOT NULL,
    score_max  double precision,
    score_last double precision,
    score_high_max double precision,
    coverage_min double precision NOT NULL,
    samples integer NOT NULL,
    PRIMARY KEY (step, world, symbol, bucket)
);
COMMENT ON TABLE rollup_liquidation_risk IS 'Of the current revision of each point. NULL: every score of the bucket, or its newest, is unknown.';

CREATE TABLE rollup_stablecoin_pressure (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL,
    score_max  double precision,
    score_min  double precision,
    score_last double precision,
    coverage_min double precision NOT NULL,
    samples integer NOT NULL,
    PRIMARY KEY (step, world, bucket)
);

CREATE TABLE rollup_signals (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL, symbol text NOT NULL,
    risk_max double precision,
    pressure_min double precision,
    cascade_probability_4h_max double precision,
    critical_points integer NOT NULL,
    warning_points  integer NOT NULL,
    info_points     integer NOT NULL,
    unknown_points  integer NOT NULL,
    samples integer NOT NULL,
    PRIMARY KEY (step, world, symbol, bucket)
);
COMMENT ON TABLE rollup_signals IS '..._points: how many points of the bucket had that severity.';

DO $$
DECLARE
    source text;
    step text;
    columns text;
BEGIN
    FOREACH source IN ARRAY ARRAY['prices', 'funding_rates', 'open_interest', 'long_short_ratio', 'liquidations',
                                  'stablecoin_flows', 'liquidation_risk', 'stablecoin_pressure', 'signals'] LOOP
        SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) INTO columns
        FROM information_schema.columns
        WHERE table_schema = current_schema() AND table_name = 'rollup_' || source AND column_name <> 'step';
        FOREACH step IN ARRAY ARRAY['1m', '5m', '1h'] LOOP
            EXECUTE format('CREATE VIEW %I AS SELECT %s FROM %I WHERE step = %L',
                           source || '_' || step, columns, 'rollup_' || source, step);
        END LOOP;
    END LOOP;
END
$$;
