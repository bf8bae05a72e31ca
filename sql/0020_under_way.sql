-- Under way: whether a cascade has begun, at each grid point (docs/scores.md).

ALTER TABLE signals ADD COLUMN under_way_probability double precision;
ALTER TABLE signals ADD COLUMN under_way jsonb;
COMMENT ON COLUMN signals.under_way_probability IS 'probability that the move in progress is a cascade of the label, 0 to 1; NULL = unknown, or no move';
COMMENT ON COLUMN signals.under_way IS 'side, is_open, is_calm, rule, started_at, excursion, threshold, open_interest_change, and inputs with what is missing; NULL: scored before there was such a rule';

CREATE OR REPLACE VIEW signals_current AS
SELECT DISTINCT ON (world, symbol, time) * FROM signals ORDER BY world, symbol, time, revision DESC, created_at DESC;
