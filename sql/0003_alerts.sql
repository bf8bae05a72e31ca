-- Alerts, what was sent of them, and what followed. All state of the alert machine is here; none in memory.

CREATE TABLE alerts (
    alert_id uuid PRIMARY KEY,
    world text NOT NULL,
    rule text NOT NULL,
    subject text NOT NULL,
    side text,
    severity text NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'resolved')),
    opened_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    calm_since timestamptz,
    resolved_at timestamptz,
    acknowledged_at timestamptz, acknowledged_by text,
    score_version text NOT NULL,
    receipt jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX alerts_one_open ON alerts (world, rule, subject) WHERE state = 'open';
CREATE INDEX alerts_time ON alerts (world, opened_at DESC);
COMMENT ON COLUMN alerts.subject IS 'a symbol, or a group such as market or monitor';
COMMENT ON COLUMN alerts.calm_since IS 'since when the condition has been below the level that keeps it open (hysteresis)';

CREATE TABLE outbox (
    outbox_id uuid PRIMARY KEY,
    topic text NOT NULL CHECK (topic IN ('signals', 'alerts', 'channels')),
    message_key text NOT NULL,
    payload jsonb NOT NULL,
    alert_id uuid REFERENCES alerts,
    state text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'done', 'failed', 'held')),
    held_reason text,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at timestamptz
);
CREATE INDEX outbox_due ON outbox (due_at) WHERE state = 'due';
COMMENT ON TABLE outbox IS 'What is to be sent, written in the transaction that decided it: Kafka out-topics (signals, alerts) and human channels.';

CREATE TABLE alert_deliveries (
    delivery_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    outbox_id uuid NOT NULL REFERENCES outbox,
    alert_id uuid,
    channel text NOT NULL,
    attempt integer NOT NULL,
    attempted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ok boolean NOT NULL,
    error text
);
COMMENT ON COLUMN alert_deliveries.channel IS 'the scheme and a hash of the channel URL: never the URL, it carries secrets';

CREATE TABLE alert_outcomes (
    alert_id uuid NOT NULL REFERENCES alerts, label_version integer NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('right', 'late', 'false', 'open')),
    lead_minutes double precision,
    largest_move double precision,
    judged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (alert_id, label_version)
);
