-- Reads that stay fast for years: what a roll-up lacked, which part of it is still computed from the rows, and indexes.
-- Belongs here: tables, columns and indexes that only readers need. Does not: what a score reads.
--
-- A roll-up is stored up to `live_from` of its world and computed from the rows from there on, so a chart has its newest
-- hour and yet reads years from few rows. The views that join the two are made by `liq migrate` (store/rollups/upkeep.py).

CREATE TABLE rollup_frontiers (
    source_table text NOT NULL, world text NOT NULL,
    live_from timestamptz NOT NULL,
    PRIMARY KEY (source_table, world)
);

-- What was stored of each world's newest hour is computed from now on.
DO $$
DECLARE
    source text;
BEGIN
    FOREACH source IN ARRAY ARRAY['prices', 'funding_rates', 'open_interest', 'long_short_ratio', 'liquidations',
                                  'stablecoin_flows', 'liquidation_risk', 'stablecoin_pressure', 'signals'] LOOP
        EXECUTE format('INSERT INTO rollup_frontiers SELECT %L, world, max(bucket) FROM %I WHERE step = ''1h'''
                       ' GROUP BY world', source, 'rollup_' || source);
        EXECUTE format('DELETE FROM %I AS r USING rollup_frontiers AS f WHERE f.source_table = %L'
                       ' AND f.world = r.world AND r.bucket >= f.live_from', 'rollup_' || source, source);
        -- Buckets of an hour, whatever their series: for building it anew, and for what has had its time.
        EXECUTE format('CREATE INDEX %I ON %I USING brin (bucket) WITH (pages_per_range = 16, autosummarize = on)',
                       'rollup_' || source || '_bucket', 'rollup_' || source);
    END LOOP;
END
$$;

-- The columns that a chart over months needs; stored buckets are built anew at the next maintenance.
ALTER TABLE rollup_liquidation_risk
    ADD COLUMN long_squeeze_max double precision,
    ADD COLUMN short_squeeze_max double precision,
    ADD COLUMN funding_points_avg double precision,
    ADD COLUMN open_interest_points_avg double precision,
    ADD COLUMN long_short_points_avg double precision,
    ADD COLUMN liquidation_points_avg double precision;
ALTER TABLE rollup_stablecoin_pressure ADD COLUMN score_avg double precision;
DELETE FROM rollup_progress WHERE source_table IN ('liquidation_risk', 'stablecoin_pressure');

CREATE TABLE rollup_ticks (
    step text NOT NULL CHECK (step IN ('1m', '5m', '1h')), bucket timestamptz NOT NULL,
    world text NOT NULL, stream text NOT NULL,
    delay_seconds_max double precision NOT NULL,
    late_ticks  integer NOT NULL,
    rows_landed bigint NOT NULL,
    late_rows   bigint NOT NULL,
    samples integer NOT NULL,
    first_time timestamptz NOT NULL,
    last_time  timestamptz NOT NULL,
    PRIMARY KEY (step, world, stream, bucket)
);
CREATE INDEX rollup_ticks_bucket ON rollup_ticks USING brin (bucket) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX ticks_committed ON ticks USING brin (committed_at) WITH (autosummarize = on);

DO $$
DECLARE
    source text;
    step text;
    columns text;
BEGIN
    FOREACH source IN ARRAY ARRAY['liquidation_risk', 'stablecoin_pressure', 'ticks'] LOOP
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

-- For a chart with one point per `interval_ms`: the rows themselves, or the coarsest roll-up that is fine enough. The
-- function is inlined and the parts that do not apply are planned away, so it costs what the one part costs.
CREATE FUNCTION liquidation_risk_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, symbol text, score double precision, score_high double precision,
    coverage double precision, long_squeeze double precision, short_squeeze double precision,
    funding_points double precision, open_interest_points double precision, long_short_points double precision,
    liquidation_points double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT time, world, symbol, score, score_high, coverage, long_squeeze, short_squeeze, funding_points,
           open_interest_points, long_short_points, liquidation_points
    FROM liquidation_risk_current WHERE $1 < 60000
    UNION ALL
    SELECT bucket, world, symbol, score_max, score_high_max, coverage_min, long_squeeze_max, short_squeeze_max,
           funding_points_avg, open_interest_points_avg, long_short_points_avg, liquidation_points_avg
    FROM liquidation_risk_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, symbol, score_max, score_high_max, coverage_min, long_squeeze_max, short_squeeze_max,
           funding_points_avg, open_interest_points_avg, long_short_points_avg, liquidation_points_avg
    FROM liquidation_risk_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, symbol, score_max, score_high_max, coverage_min, long_squeeze_max, short_squeeze_max,
           funding_points_avg, open_interest_points_avg, long_short_points_avg, liquidation_points_avg
    FROM liquidation_risk_1h WHERE $1 >= 3600000
$$;

-- severity_code: 3 CRITICAL, 2 WARNING, 1 INFO, 0 NONE, -1 UNKNOWN; the highest of the bucket.
CREATE FUNCTION signals_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, symbol text, severity_code integer, risk double precision,
    cascade_probability_4h double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT time, world, symbol, CASE severity WHEN 'CRITICAL' THEN 3 WHEN 'WARNING' THEN 2 WHEN 'INFO' THEN 1
           WHEN 'NONE' THEN 0 ELSE -1 END, risk, cascade_probability_4h
    FROM signals_current WHERE $1 < 60000
    UNION ALL
    SELECT bucket, world, symbol, CASE WHEN critical_points > 0 THEN 3 WHEN warning_points > 0 THEN 2
           WHEN info_points > 0 THEN 1 WHEN unknown_points < samples THEN 0 ELSE -1 END, risk_max,
           cascade_probability_4h_max
    FROM signals_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, symbol, CASE WHEN critical_points > 0 THEN 3 WHEN warning_points > 0 THEN 2
           WHEN info_points > 0 THEN 1 WHEN unknown_points < samples THEN 0 ELSE -1 END, risk_max,
           cascade_probability_4h_max
    FROM signals_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, symbol, CASE WHEN critical_points > 0 THEN 3 WHEN warning_points > 0 THEN 2
           WHEN info_points > 0 THEN 1 WHEN unknown_points < samples THEN 0 ELSE -1 END, risk_max,
           cascade_probability_4h_max
    FROM signals_1h WHERE $1 >= 3600000
$$;

CREATE FUNCTION stablecoin_pressure_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, score double precision, coverage double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT time, world, score, coverage FROM stablecoin_pressure_current WHERE $1 < 60000
    UNION ALL
    SELECT bucket, world, score_avg, coverage_min FROM stablecoin_pressure_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, score_avg, coverage_min FROM stablecoin_pressure_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, score_avg, coverage_min FROM stablecoin_pressure_1h WHERE $1 >= 3600000
$$;

-- late_ticks: committed more than 5 s after their time by the wall clock, which says nothing in a recorded world.
CREATE FUNCTION ticks_at(interval_ms bigint) RETURNS TABLE (
    "time" timestamptz, world text, stream text, delay_seconds double precision, late_ticks bigint, rows_landed bigint,
    late_rows bigint, samples bigint, first_time timestamptz, last_time timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT time, world, stream, extract(epoch FROM committed_at - time)::double precision,
           (committed_at > time + interval '5 seconds')::int::bigint, rows_landed::bigint, late_rows::bigint, 1::bigint, time,
           time
    FROM ticks WHERE $1 < 60000
    UNION ALL
    SELECT bucket, world, stream, delay_seconds_max, late_ticks::bigint, rows_landed, late_rows, samples::bigint,
           first_time, last_time
    FROM ticks_1m WHERE $1 >= 60000 AND $1 < 300000
    UNION ALL
    SELECT bucket, world, stream, delay_seconds_max, late_ticks::bigint, rows_landed, late_rows, samples::bigint,
           first_time, last_time
    FROM ticks_5m WHERE $1 >= 300000 AND $1 < 3600000
    UNION ALL
    SELECT bucket, world, stream, delay_seconds_max, late_ticks::bigint, rows_landed, late_rows, samples::bigint,
           first_time, last_time
    FROM ticks_1h WHERE $1 >= 3600000
$$;

-- A block range that is not summarised is read in full: without this, everything since the last vacuum.
ALTER INDEX prices_landed SET (autosummarize = on);
ALTER INDEX funding_rates_landed SET (autosummarize = on);
ALTER INDEX open_interest_landed SET (autosummarize = on);
ALTER INDEX long_short_ratio_landed SET (autosummarize = on);
ALTER INDEX liquidations_landed SET (autosummarize = on);
ALTER INDEX stablecoin_flows_landed SET (autosummarize = on);
ALTER INDEX liquidation_risk_created SET (autosummarize = on);
ALTER INDEX stablecoin_pressure_created SET (autosummarize = on);
ALTER INDEX signals_created SET (autosummarize = on);
ALTER INDEX prices_event_time SET (autosummarize = on);
ALTER INDEX funding_rates_event_time SET (autosummarize = on);
ALTER INDEX open_interest_event_time SET (autosummarize = on);
ALTER INDEX long_short_ratio_event_time SET (autosummarize = on);
ALTER INDEX liquidations_event_time SET (autosummarize = on);

-- What `liq status` and the dashboards count: the few rows that wait, not the many that are done.
CREATE INDEX outbox_waiting ON outbox (state) WHERE state <> 'done';
CREATE INDEX outbox_channels ON outbox (world, created_at) WHERE topic = 'channels';
CREATE INDEX alert_deliveries_time ON alert_deliveries (attempted_at);
CREATE INDEX dead_letters_waiting ON dead_letters (dead_at) WHERE resubmitted_at IS NULL;
CREATE INDEX ingest_gaps_found ON ingest_gaps (world, found_at);

CREATE TABLE storage_samples (
    part text NOT NULL CHECK (part IN ('postgres', 'kafka', 'dagster')), day date NOT NULL,
    sampled_at timestamptz NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    PRIMARY KEY (part, day)
);
