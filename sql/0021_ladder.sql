-- The ladder: storm watch, under way, over; and when people first heard of an alert.

ALTER TABLE alerts DROP CONSTRAINT alerts_rule_check;
ALTER TABLE alerts ADD CONSTRAINT alerts_rule_check CHECK (rule IN ('under_way', 'severity', 'early_warning', 'blind'));

-- told_at is when people were told last: every later message moves it on. A track record is judged from the first time,
-- which was kept nowhere. For stored alerts it is found again in the append-only history: the first change at a level that is
-- sent to people, of the alert itself or of the group that speaks for it. Alerts of whose changes nothing is left keep NULL.
ALTER TABLE alerts ADD COLUMN first_told_at timestamptz;
COMMENT ON COLUMN alerts.first_told_at IS 'when people first heard of it; NULL: not told (told_at is NULL too), or told before this was kept and not to be found again';
COMMENT ON COLUMN alerts.told_at IS 'when people were last told that level; the first time is first_told_at';
UPDATE alerts AS a SET first_told_at = least(a.told_at, (
    SELECT min(c.time) FROM alert_changes AS c
    WHERE c.alert_id = a.alert_id AND c.severity IN ('WARNING', 'CRITICAL')
)) WHERE a.told_at IS NOT NULL AND EXISTS (
    SELECT 1 FROM alert_changes AS c WHERE c.alert_id = a.alert_id AND c.severity IN ('WARNING', 'CRITICAL')
);

ALTER TABLE alert_outcomes ADD COLUMN delay_minutes double precision;
ALTER TABLE alert_outcomes ADD COLUMN further_move_1h double precision;
ALTER TABLE alert_outcomes ADD COLUMN adverse_move_1h double precision;
COMMENT ON COLUMN alert_outcomes.delay_minutes IS 'under way: from the cascade''s onset to the first message, minutes; negative = before it';
COMMENT ON COLUMN alert_outcomes.further_move_1h IS 'under way: how far the price went in the alert''s direction within 1 h of the first message, a fraction';
COMMENT ON COLUMN alert_outcomes.adverse_move_1h IS 'the same against it';
