-- Scores, signals, and the derived state they rest on.
-- Belongs here: everything the tick writes. Does not: alerts (0003).

CREATE TABLE ticks (
    world text NOT NULL, stream text NOT NULL CHECK (stream IN ('market', 'flows')), time timestamptz NOT NULL,
    cut jsonb NOT NULL,
    started_at timestamptz NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rows_landed integer NOT NULL,
    late_rows integer NOT NULL DEFAULT 0,
    dagster_run_id text,
    PRIMARY KEY (world, stream, time)
);
COMMENT ON COLUMN ticks.cut IS '{cluster_id: {topic: {partition: next landed offset}}}, read in the snapshot that the inputs came from';

CREATE TABLE feature_bars (
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL, bar_end timestamptz NOT NULL,
    price_usd double precision,
    open_interest_base double precision,
    funding_rate_per_8h double precision,
    long_share double precision,
    long_liquidated_cents bigint,
    short_liquidated_cents bigint,
    built_at_time timestamptz NOT NULL,
    PRIMARY KEY (world, symbol, venue, bar_end, built_at_time)
);
COMMENT ON TABLE feature_bars IS 'The 5-minute grid that look-backs and percentiles stand on: values as known at bar_end, liquidated cents in (bar_end - 5 min, bar_end]. NULL = unknown; no row = nothing known. Append-only: archive rows that arrive later add a version in which only unknown cells became known. built_at_time: grid time of the tick that wrote it; a score at T uses, cell by cell, the versions with built_at_time <= T.';

CREATE TABLE flow_bars (
    world text NOT NULL, bar_end timestamptz NOT NULL, window_minutes integer NOT NULL,
    inflow_cents bigint NOT NULL,
    outflow_cents bigint NOT NULL,
    built_at_time timestamptz NOT NULL,
    PRIMARY KEY (world, bar_end, window_minutes, built_at_time)
);
COMMENT ON TABLE flow_bars IS 'Users'' stablecoin flows to and from exchanges in (bar_end - window, bar_end] as known at bar_end, with the labels then in force: the history that scales the pressure. No row = no flow source was alive.';

CREATE TABLE feature_references (
    world text NOT NULL, symbol text NOT NULL, venue text NOT NULL, feature text NOT NULL, day date NOT NULL,
    built_at_time timestamptz NOT NULL,
    observations integer NOT NULL,
    quantiles double precision[] NOT NULL,
    PRIMARY KEY (world, symbol, venue, feature, day, built_at_time)
);
COMMENT ON TABLE feature_references IS 'Per UTC day: equally spaced order statistics of a feature over the 30 days of bars that end at that day''s first instant. A score at T uses the newest with built_at_time <= T.';

CREATE TABLE liquidation_risk (
    world text NOT NULL, symbol text NOT NULL, time timestamptz NOT NULL, score_version text NOT NULL, revision integer NOT NULL DEFAULT 0,
    score                double precision CHECK (score BETWEEN 0 AND 100),
    score_high           double precision CHECK (score_high BETWEEN 0 AND 100),
    side                 text CHECK (side IN ('long', 'short')),
    funding_points       double precision CHECK (funding_points BETWEEN 0 AND 30),
    open_interest_points double precision CHECK (open_interest_points BETWEEN 0 AND 30),
    long_short_points    double precision CHECK (long_short_points BETWEEN 0 AND 20),
    liquidation_points   double precision CHECK (liquidation_points BETWEEN 0 AND 20),
    long_squeeze         double precision,
    short_squeeze        double precision,
    coverage             double precision NOT NULL CHECK (coverage BETWEEN 0 AND 1),
    inputs               jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (world, symbol, time, score_version, revision)
);
COMMENT ON COLUMN liquidation_risk.side IS 'whose squeeze the score is: long = longs would be liquidated by a fall';
CREATE INDEX liquidation_risk_time ON liquidation_risk (world, time DESC);

CREATE TABLE stablecoin_pressure (
    world text NOT NULL, time timestamptz NOT NULL, score_version text NOT NULL, revision integer NOT NULL DEFAULT 0,
    score          double precision CHECK (score BETWEEN -100 AND 100),
    inflow_usd     double precision,
    outflow_usd    double precision,
    window_minutes integer NOT NULL,
    coverage       double precision NOT NULL CHECK (coverage BETWEEN 0 AND 1),
    inputs         jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (world, time, score_version, revision)
);

CREATE TABLE signals (
    world text NOT NULL, symbol text NOT NULL, time timestamptz NOT NULL, score_version text NOT NULL, revision integer NOT NULL DEFAULT 0,
    risk              double precision,
    pressure          double precision,
    severity          text NOT NULL CHECK (severity IN ('CRITICAL', 'WARNING', 'INFO', 'NONE', 'UNKNOWN')),
    severity_possible text NOT NULL CHECK (severity_possible IN ('CRITICAL', 'WARNING', 'INFO', 'NONE', 'UNKNOWN')),
    flow_side_known   boolean NOT NULL,
    note              text NOT NULL DEFAULT '',
    cascade_probability_1h  double precision,
    cascade_probability_4h  double precision,
    cascade_probability_24h double precision,
    model_id          text,
    baseline_volatility_percentile double precision,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (world, symbol, time, score_version, revision)
);
COMMENT ON COLUMN signals.note IS 'what limits this signal, in words: silent venues, warming components, blind flow side';
CREATE INDEX signals_time ON signals (world, time DESC);

-- The newest revision under the newest score_version of each point.
CREATE VIEW liquidation_risk_current AS
SELECT DISTINCT ON (world, symbol, time) * FROM liquidation_risk ORDER BY world, symbol, time, revision DESC, created_at DESC;
CREATE VIEW stablecoin_pressure_current AS
SELECT DISTINCT ON (world, time) * FROM stablecoin_pressure ORDER BY world, time, revision DESC, created_at DESC;
CREATE VIEW signals_current AS
SELECT DISTINCT ON (world, symbol, time) * FROM signals ORDER BY world, symbol, time, revision DESC, created_at DESC;
