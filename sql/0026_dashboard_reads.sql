-- What the dashboards of the market, of stablecoin flows, of running cascades and of the pipeline read.
-- Belongs here: views, roll-ups, functions and tables that only readers need. Does not: what a score reads.

-- Canonical transfers by exchange, each seen from the exchange's side; one between two exchanges is in it twice.
CREATE VIEW exchange_flows AS
SELECT world, chain, token, coalesce(to_entity, 'unknown') AS exchange, event_time, landed_at, is_canonical,
       CASE direction WHEN 'inflow' THEN amount ELSE 0 END AS inflow, 0::numeric AS outflow,
       CASE direction WHEN 'inflow' THEN 0 ELSE amount END AS from_exchanges, 0::numeric AS to_exchanges
FROM stablecoin_flows WHERE direction IN ('inflow', 'inter_exchange')
UNION ALL
SELECT world, chain, token, coalesce(from_entity, 'unknown'), event_time, landed_at, is_canonical,
       0::numeric, CASE direction WHEN 'outflow' THEN amount ELSE 0 END,
       0::numeric, CASE direction WHEN 'outflow' THEN 0 ELSE amount END
FROM stablecoin_flows WHERE direction IN ('outflow', 'inter_exchange');
COMMENT ON VIEW exchange_flows IS 'stablecoin_flows by exchange, directions and owners as first seen. inflow, outflow: with users; from_exchanges, to_exchanges: with other exchanges.';

CREATE TABLE rollup_exchange_flows (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL, chain text NOT NULL, token text NOT NULL, exchange text NOT NULL,
    inflow         numeric NOT NULL,
    outflow        numeric NOT NULL,
    from_exchanges numeric NOT NULL,
    to_exchanges   numeric NOT NULL,
    transfers integer NOT NULL,
    PRIMARY KEY (step, world, chain, token, exchange, bucket)
);
CREATE INDEX rollup_exchange_flows_bucket ON rollup_exchange_flows USING brin (bucket) WITH (pages_per_range = 16);
ALTER TABLE rollup_exchange_flows SET (autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE rollup_exchange_flows IS 'Stored buckets of exchange_flows; read exchange_flows_1m, _5m, _1h.';
COMMENT ON COLUMN rollup_exchange_flows.exchange IS 'who owns the address on the exchange''s side, as first seen; unknown where the label names nobody';
COMMENT ON COLUMN rollup_exchange_flows.inflow IS 'whole tokens that users sent in';
COMMENT ON COLUMN rollup_exchange_flows.outflow IS 'whole tokens that users took out';
COMMENT ON COLUMN rollup_exchange_flows.from_exchanges IS 'whole tokens that came from other exchanges';
COMMENT ON COLUMN rollup_exchange_flows.to_exchanges IS 'whole tokens that went to other exchanges';
COMMENT ON COLUMN rollup_exchange_flows.transfers IS 'how many';

-- The largest transfers of a long range, without sorting all of them.
CREATE INDEX stablecoin_flows_amount ON stablecoin_flows (world, amount DESC) WHERE is_canonical AND direction <> 'other';

-- Whether cascades were under way, for charts over months. What is stored is built anew at the next maintenance.
ALTER TABLE rollup_signals
    ADD COLUMN under_way_probability_max double precision,
    ADD COLUMN under_way_reach_max double precision,
    ADD COLUMN under_way_points integer;
COMMENT ON COLUMN rollup_signals.under_way_probability_max IS 'the highest under_way_probability';
COMMENT ON COLUMN rollup_signals.under_way_reach_max IS 'the furthest that a move had run, in thresholds of a cascade: 0 = no move, 1 = a cascade''s size; NULL = unknown';
COMMENT ON COLUMN rollup_signals.under_way_points IS 'points at which a cascade was under way; NULL = none of them told';
DELETE FROM rollup_progress WHERE source_table = 'signals';

-- The views as far as they are stored; `liq migrate` joins the newest rows to them (store/rollups/upkeep.py).
DO $$
DECLARE
    source text;
    step text;
    columns text;
BEGIN
    FOREACH source IN ARRAY ARRAY['exchange_flows', 'signals'] LOOP
        SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) INTO columns
        FROM information_schema.columns
        WHERE table_schema = current_schema() AND table_name = 'rollup_' || source AND column_name <> 'step';
        FOREACH step IN ARRAY ARRAY['1m', '5m', '1h'] LOOP
            EXECUTE format('CREATE OR REPLACE VIEW %I AS SELECT %s FROM %I WHERE step = %L',
                           source || '_' || step, columns, 'rollup_' || source, step);
        END LOOP;
    END LOOP;
END
$$;

-- For a chart with one point per `interval_ms`: the rows themselves, or the coarsest roll-up that is fine enough, as in
-- 0007. Name the venues in the query: every index has the venue before the time.
CREATE FUNCTION prices_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, symbol text, venue text, price_usd double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT event_time, world, symbol, venue, price_usd FROM prices WHERE $1 < 60000
    UNION ALL
    SELECT bucket, world, symbol, venue, price_usd_last FROM prices_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, symbol, venue, price_usd_last FROM prices_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, symbol, venue, price_usd_last FROM prices_1h WHERE $1 >= 3600000
$$;

CREATE FUNCTION funding_rates_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, symbol text, venue text, kind text, rate_per_8h double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT event_time, world, symbol, venue, kind, rate_per_8h FROM funding_rates WHERE $1 < 60000
    UNION ALL
    SELECT bucket, world, symbol, venue, kind, rate_per_8h_last FROM funding_rates_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, symbol, venue, kind, rate_per_8h_last FROM funding_rates_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, symbol, venue, kind, rate_per_8h_last FROM funding_rates_1h WHERE $1 >= 3600000
$$;

CREATE FUNCTION open_interest_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, symbol text, venue text, open_interest_base double precision,
    open_interest_usd double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT event_time, world, symbol, venue, open_interest_base, open_interest_usd FROM open_interest WHERE $1 < 60000
    UNION ALL
    SELECT bucket, world, symbol, venue, open_interest_base_last, open_interest_usd_last
    FROM open_interest_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, symbol, venue, open_interest_base_last, open_interest_usd_last
    FROM open_interest_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, symbol, venue, open_interest_base_last, open_interest_usd_last
    FROM open_interest_1h WHERE $1 >= 3600000
$$;

CREATE FUNCTION long_short_ratio_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, symbol text, venue text, kind text, period_minutes integer,
    long_share double precision, ratio double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT event_time, world, symbol, venue, kind, period_minutes, long_share, ratio FROM long_short_ratio WHERE $1 < 60000
    UNION ALL
    SELECT bucket, world, symbol, venue, kind, period_minutes, long_share_last, ratio_last
    FROM long_short_ratio_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, symbol, venue, kind, period_minutes, long_share_last, ratio_last
    FROM long_short_ratio_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, symbol, venue, kind, period_minutes, long_share_last, ratio_last
    FROM long_short_ratio_1h WHERE $1 >= 3600000
$$;

CREATE FUNCTION liquidations_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, symbol text, venue text, liquidated_side text, notional_usd double precision,
    quantity_base double precision, events bigint, is_sample boolean
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT event_time, world, symbol, venue, liquidated_side, notional_usd, quantity_base, 1::bigint, is_sample
    FROM liquidations WHERE $1 < 60000
    UNION ALL
    SELECT bucket, world, symbol, venue, liquidated_side, notional_usd, quantity_base, events::bigint, is_sample
    FROM liquidations_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, symbol, venue, liquidated_side, notional_usd, quantity_base, events::bigint, is_sample
    FROM liquidations_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, symbol, venue, liquidated_side, notional_usd, quantity_base, events::bigint, is_sample
    FROM liquidations_1h WHERE $1 >= 3600000
$$;

-- Sums are for the eye here, hence floating point; the exact ones are in the views.
CREATE FUNCTION exchange_flows_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, chain text, token text, exchange text, inflow double precision,
    outflow double precision, from_exchanges double precision, to_exchanges double precision, transfers bigint
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT event_time, world, chain, token, exchange, inflow::double precision, outflow::double precision,
           from_exchanges::double precision, to_exchanges::double precision, 1::bigint
    FROM exchange_flows WHERE $1 < 60000 AND is_canonical
    UNION ALL
    SELECT bucket, world, chain, token, exchange, inflow::double precision, outflow::double precision,
           from_exchanges::double precision, to_exchanges::double precision, transfers::bigint
    FROM exchange_flows_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, chain, token, exchange, inflow::double precision, outflow::double precision,
           from_exchanges::double precision, to_exchanges::double precision, transfers::bigint
    FROM exchange_flows_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, chain, token, exchange, inflow::double precision, outflow::double precision,
           from_exchanges::double precision, to_exchanges::double precision, transfers::bigint
    FROM exchange_flows_1h WHERE $1 >= 3600000
$$;

-- How far a move in progress has run, in thresholds of a cascade; NULL: not told, so unknown.
CREATE FUNCTION under_way_reach(under_way jsonb) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN $1 ->> 'is_open' IS NULL THEN NULL
           ELSE coalesce(abs(($1 ->> 'excursion')::double precision / nullif(($1 ->> 'threshold')::double precision, 0)), 0) END
$$;

CREATE FUNCTION under_way_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, symbol text, probability double precision, reach double precision,
    open_points bigint, samples bigint
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT time, world, symbol, under_way_probability, under_way_reach(under_way),
           ((under_way ->> 'is_open')::boolean)::int::bigint, 1::bigint
    FROM signals_current WHERE $1 < 60000
    UNION ALL
    SELECT bucket, world, symbol, under_way_probability_max, under_way_reach_max, under_way_points::bigint, samples::bigint
    FROM signals_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, symbol, under_way_probability_max, under_way_reach_max, under_way_points::bigint, samples::bigint
    FROM signals_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, symbol, under_way_probability_max, under_way_reach_max, under_way_points::bigint, samples::bigint
    FROM signals_1h WHERE $1 >= 3600000
$$;

-- Dagster's runs, noted before their time is up: its own storage keeps those of ticks for hours only, and Grafana's role
-- cannot read it.
CREATE TABLE dagster_run_counts (
    hour timestamptz NOT NULL, job text NOT NULL, status text NOT NULL,
    runs integer NOT NULL CHECK (runs > 0),
    counted_at timestamptz NOT NULL,
    PRIMARY KEY (hour, job, status)
);
COMMENT ON TABLE dagster_run_counts IS 'How many runs of Dagster began in each hour, by job and how they ended; noted by the hourly maintenance.';
COMMENT ON COLUMN dagster_run_counts.hour IS 'the hour in which they were made';
COMMENT ON COLUMN dagster_run_counts.job IS 'the job''s name';
COMMENT ON COLUMN dagster_run_counts.status IS 'Dagster''s word: SUCCESS, FAILURE, CANCELED';
COMMENT ON COLUMN dagster_run_counts.runs IS 'how many';
COMMENT ON COLUMN dagster_run_counts.counted_at IS 'when they were counted last';

CREATE TABLE dagster_failures (
    run_id text PRIMARY KEY,
    job text NOT NULL,
    failed_at timestamptz NOT NULL,
    sentence text NOT NULL
);
CREATE INDEX dagster_failures_time ON dagster_failures (failed_at);
COMMENT ON TABLE dagster_failures IS 'Runs of Dagster that failed, and why; noted by the hourly maintenance.';
COMMENT ON COLUMN dagster_failures.run_id IS 'Dagster''s id of the run: its page is /runs/<id>';
COMMENT ON COLUMN dagster_failures.job IS 'the job''s name';
COMMENT ON COLUMN dagster_failures.failed_at IS 'when it ended';
COMMENT ON COLUMN dagster_failures.sentence IS 'the first failure that it told';
