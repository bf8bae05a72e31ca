-- The liquidation map: where open positions would be closed by force, as an estimate (docs/levels.md).
-- One row per symbol and 5 min; rows older than 30 days are kept hourly (store/levels.py). Bin k of a side holds what
-- lies k to k+1 bin widths from the reference price, longs below it, shorts above it.

CREATE TABLE liquidation_levels (
    world text NOT NULL,
    symbol text NOT NULL,
    time timestamptz NOT NULL,
    method_version text NOT NULL,
    reference_usd double precision,
    bin_width double precision NOT NULL,
    long_notional_usd real[],
    short_notional_usd real[],
    long_within_1_usd double precision,
    long_within_3_usd double precision,
    long_within_5_usd double precision,
    short_within_1_usd double precision,
    short_within_3_usd double precision,
    short_within_5_usd double precision,
    long_cluster_usd double precision,
    long_cluster_price_usd double precision,
    long_cluster_distance double precision,
    short_cluster_usd double precision,
    short_cluster_price_usd double precision,
    short_cluster_distance double precision,
    high_factor double precision,
    coverage double precision NOT NULL,
    venues text[] NOT NULL,
    silent_venues text[] NOT NULL,
    unheard_venues text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (world, symbol, time, method_version)
);
COMMENT ON TABLE liquidation_levels IS 'The liquidation map, an estimate: notional that would be closed by force around the price, one row per symbol and 5 min, hourly after 30 days.';
COMMENT ON COLUMN liquidation_levels.time IS 'the bar''s end that the map is as of; it stands on what was known then';
COMMENT ON COLUMN liquidation_levels.method_version IS 'name and hash of every assumption';
COMMENT ON COLUMN liquidation_levels.reference_usd IS 'median of the known venues'' prices, USD; NULL: nobody''s open interest was known';
COMMENT ON COLUMN liquidation_levels.bin_width IS 'width of a bin as a fraction of reference_usd';
COMMENT ON COLUMN liquidation_levels.long_notional_usd IS 'USD of longs per bin, from the reference downwards; NULL = unknown';
COMMENT ON COLUMN liquidation_levels.short_notional_usd IS 'USD of shorts per bin, from the reference upwards; NULL = unknown';
COMMENT ON COLUMN liquidation_levels.long_within_1_usd IS 'USD of longs within 1 % below; NULL = unknown';
COMMENT ON COLUMN liquidation_levels.long_within_3_usd IS 'USD of longs within 3 % below; NULL = unknown';
COMMENT ON COLUMN liquidation_levels.long_within_5_usd IS 'USD of longs within 5 % below; NULL = unknown';
COMMENT ON COLUMN liquidation_levels.short_within_1_usd IS 'USD of shorts within 1 % above; NULL = unknown';
COMMENT ON COLUMN liquidation_levels.short_within_3_usd IS 'USD of shorts within 3 % above; NULL = unknown';
COMMENT ON COLUMN liquidation_levels.short_within_5_usd IS 'USD of shorts within 5 % above; NULL = unknown';
COMMENT ON COLUMN liquidation_levels.long_cluster_usd IS 'USD in the nearest cluster below (bins of twice their side''s mean within 10 %); NULL: unknown, or no cluster';
COMMENT ON COLUMN liquidation_levels.long_cluster_price_usd IS 'middle of that cluster''s densest bin, USD';
COMMENT ON COLUMN liquidation_levels.long_cluster_distance IS 'distance of that cluster''s nearest edge, a fraction of reference_usd';
COMMENT ON COLUMN liquidation_levels.short_cluster_usd IS 'USD in the nearest cluster above; NULL: unknown, or no cluster';
COMMENT ON COLUMN liquidation_levels.short_cluster_price_usd IS 'middle of that cluster''s densest bin, USD';
COMMENT ON COLUMN liquidation_levels.short_cluster_distance IS 'distance of that cluster''s nearest edge, a fraction of reference_usd';
COMMENT ON COLUMN liquidation_levels.high_factor IS 'every amount may be so many times larger, for silent venues and positions opened before the window; NULL: nobody knows by how much';
COMMENT ON COLUMN liquidation_levels.coverage IS 'share, 0 to 1, of the open interest of known and silent venues whose opening the map has seen';
COMMENT ON COLUMN liquidation_levels.venues IS 'venues whose open interest and price were known at `time`';
COMMENT ON COLUMN liquidation_levels.silent_venues IS 'venues known earlier in the window and not at `time`: they widen the range and add nothing';
COMMENT ON COLUMN liquidation_levels.unheard_venues IS 'expected venues that list the symbol and were not heard in the whole window';
