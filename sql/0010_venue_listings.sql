-- Which venue lists which coin, and since when: what a score at a given time may expect of whom.
-- Belongs here: the history of listings. Does not: how a venue names a coin now (venue_instruments, 0005).

CREATE TABLE venue_listings (
    venue text NOT NULL, symbol text NOT NULL,
    valid_from timestamptz NOT NULL,
    is_listed boolean NOT NULL,
    PRIMARY KEY (venue, symbol, valid_from)
);
COMMENT ON TABLE venue_listings IS 'One row per change. A venue is expected to bring a coin unless the newest row at or before T says that it does not list it. Rows are only added, and only for times that lie ahead: a re-score of T reads what the tick of T has read.';
COMMENT ON COLUMN venue_listings.valid_from IS 'a minute after the venue''s list was read, so that the row is committed before any tick it counts for';

INSERT INTO venue_listings (venue, symbol, valid_from, is_listed)
SELECT venue, symbol, clock_timestamp() + interval '60 seconds', false
FROM venue_instruments WHERE native_symbol IS NULL;
