-- What history has been loaded, piece by piece: where a backfill goes on, and how a corrected file is noticed.
-- Belongs here: the ledger of archive files and pages. Does not: the rows they brought (0001).

CREATE TABLE archive_files (
    world text NOT NULL, source text NOT NULL, path text NOT NULL, checksum text NOT NULL,
    series       text NOT NULL,
    symbol       text NOT NULL,
    from_time    timestamptz NOT NULL,
    to_time      timestamptz NOT NULL,
    rows         integer NOT NULL,
    rows_sent    integer NOT NULL,
    fetched_at   timestamptz NOT NULL,
    landed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (world, source, path, checksum)
);
COMMENT ON TABLE archive_files IS 'One row per version of a file (or page of a venue''s history) whose rows have all landed. Of several versions of one path the newest landed_at is the one in force; the values that a correction replaced are in row_conflicts.';
COMMENT ON COLUMN archive_files.path IS 'below the source''s address, so that a mirror is the same archive';
COMMENT ON COLUMN archive_files.checksum IS 'sha256 of the file as the archive publishes it; of the answer for a page';
COMMENT ON COLUMN archive_files.rows_sent IS 'of its rows, those that were not in the tables before';
