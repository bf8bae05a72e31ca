-- Healing holes: which series a gap is in, what became of it, and up to when the series have been checked.
-- Belongs here: what the healer needs beside the ledger itself (0001). Does not: the observations that close a hole.

ALTER TABLE ingest_gaps
    ADD COLUMN venue text,
    ADD COLUMN topic text,
    ADD COLUMN kind text,
    ADD COLUMN permanent_reason text,
    ADD COLUMN rescored_at timestamptz;
COMMENT ON COLUMN ingest_gaps.topic IS 'with venue, kind and symbol: the series that has the hole; NULL for a hole in Kafka''s own log';
COMMENT ON COLUMN ingest_gaps.venue IS 'whose series has the hole, e.g. bybit';
COMMENT ON COLUMN ingest_gaps.kind IS 'kind of the series where its table has several, e.g. settled or accounts';
COMMENT ON COLUMN ingest_gaps.cause IS 'how the hole came to be';
COMMENT ON COLUMN ingest_gaps.permanent_reason IS 'why it will never be closed';
COMMENT ON COLUMN ingest_gaps.healed_at IS 'when its rows were found in the table, never before';
COMMENT ON COLUMN ingest_gaps.rescored_at IS 'when the scores that the hole had touched got their new revision';

-- Holes of a series were always named "venue topic".
UPDATE ingest_gaps SET venue = split_part(source, ' ', 1), topic = split_part(source, ' ', 2)
WHERE source LIKE '% %' AND source NOT LIKE 'kafka:%';
UPDATE ingest_gaps SET permanent_reason = cause WHERE is_permanent;

CREATE INDEX ingest_gaps_unhealed ON ingest_gaps (world) WHERE healed_at IS NULL AND NOT is_permanent;
CREATE INDEX ingest_gaps_series ON ingest_gaps (world, source, symbol, from_time);

CREATE TABLE gap_checks (
    world text PRIMARY KEY,
    checked_until timestamptz NOT NULL
);
COMMENT ON TABLE gap_checks IS 'Up to which event time the series of a world have been searched for holes. Losing the row costs one longer search.';
