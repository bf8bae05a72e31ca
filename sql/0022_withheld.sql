-- What a channel's own options keep from it is on record too, beside what was sent.

ALTER TABLE alert_deliveries ADD COLUMN withheld text;
COMMENT ON COLUMN alert_deliveries.withheld IS 'why the channel''s own options (liq_min, liq_rules, liq_quiet) kept this message from it; NULL: it was attempted';
ALTER TABLE alert_deliveries ADD COLUMN is_final boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN alert_deliveries.is_final IS 'the service turned us away for good (a wrong token, an unknown address): told once, not tried again';
