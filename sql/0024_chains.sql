-- Stablecoin flows over several chains: each with its own look-back and scale, since when it is expected, and what a pressure
-- could be where some are silent.

ALTER TABLE flow_bars ADD COLUMN chain text NOT NULL DEFAULT 'ethereum';
ALTER TABLE flow_bars ALTER COLUMN chain DROP DEFAULT;
ALTER TABLE flow_bars DROP CONSTRAINT flow_bars_pkey;
ALTER TABLE flow_bars ADD PRIMARY KEY (world, chain, bar_end, window_minutes, built_at_time);
COMMENT ON COLUMN flow_bars.chain IS 'the chain; rows of before there were several are Ethereum''s';
COMMENT ON TABLE flow_bars IS 'Users'' stablecoin flows to and from exchanges on one chain in (bar_end - window, bar_end] as known at bar_end, with the labels then in force: the history that scales the pressure. No row = no source of that chain was alive.';
UPDATE feature_references SET venue = 'ethereum' WHERE symbol = '*' AND feature = 'stablecoin_net_flow_cents';

CREATE TABLE flow_venues (
    entry_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    world text NOT NULL, venue text NOT NULL,
    from_time timestamptz, to_time timestamptz
);
COMMENT ON TABLE flow_venues IS 'Since when, and until when, a source of flows is expected, where that is not as long as the world has been: a chain that is added later lowers no coverage of before. A source in the manifest without a row is expected at all times.';
COMMENT ON COLUMN flow_venues.entry_id IS 'number';
COMMENT ON COLUMN flow_venues.venue IS 'the source of flows; its name tells the chain';
COMMENT ON COLUMN flow_venues.from_time IS 'points after it expect the source; NULL: since the world began';
COMMENT ON COLUMN flow_venues.to_time IS 'points up to it do; NULL: still';

ALTER TABLE stablecoin_pressure ADD COLUMN score_low double precision;
ALTER TABLE stablecoin_pressure ADD COLUMN score_high double precision;
COMMENT ON COLUMN stablecoin_pressure.score_low IS 'the least that the score could be if every chain that is silent or warming were known, -100 to 100; NULL where score is, or scored before there were several chains';
COMMENT ON COLUMN stablecoin_pressure.score_high IS 'the most that it could be';
CREATE OR REPLACE VIEW stablecoin_pressure_current AS
SELECT DISTINCT ON (world, time) * FROM stablecoin_pressure ORDER BY world, time, revision DESC, created_at DESC;

CREATE VIEW stablecoin_supply_1h AS
SELECT world, chain, token, date_trunc('hour', event_time, 'UTC') AS bucket,
       coalesce(sum(amount) FILTER (WHERE direction = 'mint'), 0) AS minted,
       coalesce(sum(amount) FILTER (WHERE direction = 'burn'), 0) AS burned
FROM stablecoin_flows
WHERE is_canonical AND direction IN ('mint', 'burn')
GROUP BY world, chain, token, date_trunc('hour', event_time, 'UTC');
COMMENT ON VIEW stablecoin_supply_1h IS 'Tokens that came into circulation and went out of it, by chain, token and hour: no user''s flow and no part of the pressure.';
