-- Alerts, what was sent of them, and what followed. All state of the alert machine is here; none in memory.

CREATE TABLE alerts (
    alert_id uuid PRIMARY KEY,
    page_id uuid NOT NULL,
    world text NOT NULL,
    rule text NOT NULL CHECK (rule IN ('severity', 'early_warning', 'blind')),
    subject text NOT NULL,
    side text CHECK (side IN ('long', 'short')),
    severity text NOT NULL CHECK (severity IN ('INFO', 'WARNING', 'CRITICAL')),
    peak_severity text NOT NULL CHECK (peak_severity IN ('INFO', 'WARNING', 'CRITICAL')),
    state text NOT NULL CHECK (state IN ('open', 'resolved')),
    group_id uuid REFERENCES alerts DEFERRABLE INITIALLY DEFERRED,
    opened_at timestamptz NOT NULL,
    raised_at timestamptz,
    judged_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    calm_since timestamptz,
    calm_severity text CHECK (calm_severity IN ('NONE', 'INFO', 'WARNING', 'CRITICAL')),
    component_shares jsonb NOT NULL DEFAULT '{}',
    told_severity text CHECK (told_severity IN ('INFO', 'WARNING', 'CRITICAL')),
    told_at timestamptz,
    resolved_at timestamptz,
    resolved_because text,
    acknowledged_at timestamptz, acknowledged_by text,
    score_version text NOT NULL,
    receipt jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((state = 'resolved') = (resolved_at IS NOT NULL))
);
CREATE UNIQUE INDEX alerts_one_open ON alerts (world, rule, subject) WHERE state = 'open';
CREATE INDEX alerts_time ON alerts (world, opened_at DESC);
CREATE INDEX alerts_resolved ON alerts (world, resolved_at) WHERE state = 'resolved';
COMMENT ON TABLE alerts IS 'The alert book. All times but acknowledged_at and created_at are the world''s clock.';
COMMENT ON COLUMN alerts.page_id IS 'the page (what a person is told about as one thing) this alert belongs to: the alert_id of the alert that was told first';
COMMENT ON COLUMN alerts.subject IS 'a symbol, or a group: market (several symbols), monitor (several symbols blind)';
COMMENT ON COLUMN alerts.group_id IS 'the group alert that speaks for this one';
COMMENT ON COLUMN alerts.raised_at IS 'since when it has been at a level that is sent to people; NULL below it';
COMMENT ON COLUMN alerts.judged_at IS 'the newest point that could be judged: an UNKNOWN point neither keeps nor calms an alert';
COMMENT ON COLUMN alerts.last_seen_at IS 'the newest point at which the condition held';
COMMENT ON COLUMN alerts.calm_since IS 'since when the condition has been below the level that keeps it open (hysteresis); calm_severity: the highest level since then';
COMMENT ON COLUMN alerts.component_shares IS '{component: share 0..1 of its expected venues that counted} when the level was last reached: points that vanish because a venue fell silent calm nothing';
COMMENT ON COLUMN alerts.told_severity IS 'the level people were last told; NULL: not told';
COMMENT ON COLUMN alerts.receipt IS 'the receipt of the newest rise (opening or escalation); those of every change are in alert_changes';

CREATE TABLE alert_changes (
    alert_id uuid NOT NULL REFERENCES alerts,
    time timestamptz NOT NULL,
    kind text NOT NULL CHECK (kind IN ('opened', 'escalated', 'eased', 'resolved')),
    severity text NOT NULL,
    severity_before text NOT NULL,
    reason text NOT NULL,
    receipt jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (alert_id, time, kind)
);
COMMENT ON TABLE alert_changes IS 'Every change of an alert''s level, with the receipt of that moment; append-only. severity: the level after it (NONE when resolved).';

CREATE TABLE alert_pending (
    world text NOT NULL, rule text NOT NULL, subject text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('INFO', 'WARNING', 'CRITICAL')),
    since timestamptz NOT NULL,
    PRIMARY KEY (world, rule, subject, severity)
);
COMMENT ON TABLE alert_pending IS 'Conditions that hold, but not yet for as long as their rule asks before it speaks (blind).';

CREATE TABLE outbox (
    outbox_id uuid PRIMARY KEY,
    world text NOT NULL,
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
CREATE INDEX outbox_done ON outbox (done_at) WHERE state = 'done';
COMMENT ON TABLE outbox IS 'What is to be sent, written in the transaction that decided it: Kafka out-topics (signals, alerts) and human channels.';

CREATE TABLE alert_deliveries (
    delivery_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    outbox_id uuid NOT NULL,
    alert_id uuid,
    channel text NOT NULL,
    attempt integer NOT NULL,
    attempted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ok boolean NOT NULL,
    error text
);
COMMENT ON TABLE alert_deliveries IS 'Every attempt on every channel. Kept for ever, while delivered outbox rows are pruned: hence no foreign key.';
COMMENT ON COLUMN alert_deliveries.channel IS 'the scheme and a hash of the channel URL: never the URL, it carries secrets';

CREATE INDEX alert_deliveries_outbox ON alert_deliveries (outbox_id);
CREATE INDEX alert_deliveries_alert ON alert_deliveries (alert_id);

CREATE TABLE alert_outcomes (
    alert_id uuid NOT NULL REFERENCES alerts, label_version integer NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('right', 'late', 'false', 'open')),
    lead_minutes double precision,
    largest_move double precision,
    judged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (alert_id, label_version)
);
