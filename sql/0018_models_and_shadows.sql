-- Models in shadow: what a candidate would have said, what became of it, and who decided.

CREATE TABLE model_changes (
    change_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    model_id text NOT NULL REFERENCES models,
    action text NOT NULL CHECK (action IN ('trained', 'promoted', 'rolled back')),
    replaced_model_id text,
    because text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE model_changes IS 'Which model came when and in whose place; append-only. The way back of `liq model rollback`.';
COMMENT ON COLUMN model_changes.model_id IS 'the model that was trained, or the one that was promoted or taken back';
COMMENT ON COLUMN model_changes.replaced_model_id IS 'promoted: the model in force before. rolled back: the model that speaks again';

CREATE UNIQUE INDEX models_one_champion ON models (state) WHERE state = 'champion';

CREATE TABLE shadow_probabilities (
    world text NOT NULL, symbol text NOT NULL, bar_end timestamptz NOT NULL,
    model_id text NOT NULL REFERENCES models,
    cascade_probability_1h double precision,
    cascade_probability_4h double precision,
    cascade_probability_24h double precision,
    is_past_threshold boolean,
    PRIMARY KEY (world, model_id, symbol, bar_end)
);
COMMENT ON TABLE shadow_probabilities IS 'Every candidate, and the model in force beside it, on the same 5-min bars: what a comparison stands on. Never read by a score or an alert.';

CREATE TABLE shadow_alarms (
    world text NOT NULL,
    model_id text NOT NULL REFERENCES models,
    told_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    symbols text[] NOT NULL,
    PRIMARY KEY (world, model_id, told_at, symbols)
);
COMMENT ON TABLE shadow_alarms IS 'The pages that a candidate would have sent: logged, not sent. ended_at: when it was resolved, or the newest bar.';
