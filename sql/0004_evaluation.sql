-- Labels, models and measured quality.

CREATE TABLE cascade_events (
    event_id uuid PRIMARY KEY,
    world text NOT NULL, symbol text NOT NULL, label_version integer NOT NULL,
    horizon_hours integer NOT NULL,
    starts_at timestamptz NOT NULL, onset_at timestamptz NOT NULL, peak_at timestamptz NOT NULL, ends_at timestamptz NOT NULL,
    direction text NOT NULL CHECK (direction IN ('down', 'up')),
    price_move double precision NOT NULL,
    open_interest_move double precision NOT NULL,
    is_major boolean NOT NULL, is_systemic boolean NOT NULL, is_first_shock boolean NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (world, symbol, label_version, horizon_hours, starts_at)
);

CREATE TABLE models (
    model_id text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('shipped', 'champion', 'candidate', 'retired')),
    trained_from timestamptz, trained_to timestamptz,
    parameters jsonb NOT NULL,
    facts jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    promoted_at timestamptz
);

CREATE TABLE evaluation_runs (
    evaluation_id uuid PRIMARY KEY,
    world text NOT NULL,
    label_version integer NOT NULL,
    from_time timestamptz NOT NULL, to_time timestamptz NOT NULL,
    config_hash text NOT NULL, data_hash text NOT NULL, model_id text,
    report jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE evaluation_metrics (
    evaluation_id uuid NOT NULL REFERENCES evaluation_runs,
    subject text NOT NULL, horizon_hours integer NOT NULL, metric text NOT NULL,
    value double precision, value_low double precision, value_high double precision,
    PRIMARY KEY (evaluation_id, subject, horizon_hours, metric)
);
