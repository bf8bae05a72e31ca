-- What each table and column means, with its unit: docs/schema is written from here (`make docs`).
-- Belongs here: comments that the file which made a table did not give. Does not: the schema itself. Later files bring
-- their own comments with their tables.

-- Columns that mean the same wherever they stand.
DO $$
DECLARE
    meaning record;
    place record;
BEGIN
    FOR meaning IN SELECT * FROM (VALUES
        ('world', 'real, simulated/<seed> or recorded/<name>; worlds never mix'),
        ('symbol', 'the coin, such as BTC'),
        ('venue', 'the exchange or provider that said it'),
        ('origin', 'live, archive, recorded or simulated: how it came here'),
        ('event_time', 'when it was true, by the venue; if the venue gives no time, when the request was sent'),
        ('event_time_source', 'venue, or local where the venue gives no time'),
        ('received_at', 'when a system of ours got it'),
        ('known_at', 'when a live collector could have had it: the only time a score filters on'),
        ('landed_at', 'when it was written here, by the database''s clock; never an input to a score'),
        ('kafka_cluster', 'kafka_clusters.cluster_no of the log it came from'),
        ('kafka_partition', 'the partition of its topic'),
        ('kafka_offset', 'the offset in that partition'),
        ('topic', 'the Kafka topic'),
        ('time', 'the grid point that was scored, by the world''s clock'),
        ('score_version', 'hash of code version, settings and model: two scores of one version were made alike'),
        ('revision', '0 for the first score of a point, one more with each re-score; nothing is overwritten'),
        ('created_at', 'when the row was written, by the database''s clock'),
        ('updated_at', 'when the row was last written'),
        ('step', 'the bucket''s length: 1m, 5m or 1h'),
        ('bucket', 'the bucket''s first instant'),
        ('samples', 'how many rows the bucket was made from'),
        ('label_version', 'version of the definition (of cascades) or list (of wallets) in force'),
        ('model_id', 'the probability model, as in models'),
        ('alert_id', 'the alert, as in alerts'),
        ('source', 'the source as `liq status` names it'),
        ('chain', 'the blockchain, such as ethereum'),
        ('token', 'the stablecoin, such as USDT'),
        ('source_table', 'the table that is rolled up')
    ) AS m (name, words) LOOP
        FOR place IN SELECT c.relname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
                     WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
                       AND a.attname = meaning.name AND a.attnum > 0 AND NOT a.attisdropped
                       AND col_description(c.oid, a.attnum) IS NULL LOOP
            EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', place.relname, meaning.name, meaning.words);
        END LOOP;
    END LOOP;
END
$$;

COMMENT ON TABLE schema_migrations IS 'The files of sql/ that have run here.';
COMMENT ON COLUMN schema_migrations.number IS 'the number in the file''s name';
COMMENT ON COLUMN schema_migrations.name IS 'the file';
COMMENT ON COLUMN schema_migrations.checksum IS 'sha256 of its text: a file that was changed afterwards is an error';
COMMENT ON COLUMN schema_migrations.applied_at IS 'when it ran here';

COMMENT ON COLUMN kafka_clusters.cluster_no IS 'the short number that rows carry';
COMMENT ON COLUMN kafka_clusters.cluster_id IS 'Kafka''s own id of the cluster';
COMMENT ON COLUMN kafka_clusters.first_seen_at IS 'when landing first read from it';

COMMENT ON COLUMN worlds.kind IS 'real, simulated or recorded';
COMMENT ON COLUMN worlds.is_active IS 'the one that is scored and shown; at most one';
COMMENT ON COLUMN worlds.market_step_seconds IS 'seconds between the grid points of the market stream';
COMMENT ON COLUMN worlds.flows_step_seconds IS 'seconds between the grid points of the flows stream';
COMMENT ON COLUMN worlds.manifest IS 'symbols, and per record type the expected venues and their cadence';
COMMENT ON COLUMN worlds.first_time IS 'where a recording begins';
COMMENT ON COLUMN worlds.last_time IS 'where a recording ends';

COMMENT ON TABLE prices IS 'Prices, one row per symbol, venue and event time: index or mark prices of venues, spot averages of price providers.';
COMMENT ON COLUMN prices.price_usd IS 'US dollars per coin';
COMMENT ON COLUMN prices.volume_24h_usd IS 'turnover of the last 24 h in US dollars; NULL where the source gives none';
COMMENT ON COLUMN prices.market_cap_usd IS 'market capitalisation in US dollars; NULL where the source gives none';

COMMENT ON TABLE funding_rates IS 'Funding of perpetual contracts: what is predicted for the running interval, and what was settled.';
COMMENT ON COLUMN funding_rates.kind IS 'predicted or settled';
COMMENT ON COLUMN funding_rates.interval_hours IS 'hours of the interval that rate is for';
COMMENT ON COLUMN funding_rates.rate_per_8h IS 'rate brought to 8 hours, as a fraction: comparable between venues';
COMMENT ON COLUMN funding_rates.next_funding_time IS 'when the running interval is settled';
COMMENT ON COLUMN funding_rates.mark_price_usd IS 'mark price in US dollars, where it comes with the rate';

COMMENT ON TABLE open_interest IS 'Open interest of perpetual contracts: what is open, counted once.';
COMMENT ON COLUMN open_interest.open_interest_base IS 'in coins: does not move with the price';
COMMENT ON COLUMN open_interest.open_interest_usd IS 'in US dollars; NULL where the venue gives only coins';

COMMENT ON TABLE long_short_ratio IS 'How a venue''s accounts or positions are divided between long and short.';
COMMENT ON COLUMN long_short_ratio.kind IS 'what is counted: accounts, top_accounts, top_positions or taker (volume)';
COMMENT ON COLUMN long_short_ratio.period_minutes IS 'minutes that the figure stands for';
COMMENT ON COLUMN long_short_ratio.long_share IS 'share that is long, 0 to 1';
COMMENT ON COLUMN long_short_ratio.short_share IS 'share that is short, 0 to 1';
COMMENT ON COLUMN long_short_ratio.ratio IS 'long over short, as the venue gives it';

COMMENT ON TABLE liquidations IS 'Positions closed by force, one row per event that a venue told.';
COMMENT ON COLUMN liquidations.event_id IS 'the venue''s id of the event, or one made from its content';
COMMENT ON COLUMN liquidations.price_usd IS 'price of the liquidation in US dollars per coin';
COMMENT ON COLUMN liquidations.quantity_base IS 'coins';
COMMENT ON COLUMN liquidations.notional_usd IS 'US dollars: price times quantity';
COMMENT ON COLUMN liquidations.source_topic IS 'the venue''s channel that it came through';

COMMENT ON TABLE stablecoin_flows IS 'Stablecoin transfers that touch a labelled wallet, one row per log entry and block.';
COMMENT ON COLUMN stablecoin_flows.tx_hash IS 'hash of the transaction';
COMMENT ON COLUMN stablecoin_flows.log_index IS 'the entry''s place in its block''s log';
COMMENT ON COLUMN stablecoin_flows.block_hash IS 'hash of the block: after a re-org the same transfer stands in another';
COMMENT ON COLUMN stablecoin_flows.block_number IS 'height of the block';
COMMENT ON COLUMN stablecoin_flows.is_canonical IS 'false once a re-org has removed the block';
COMMENT ON COLUMN stablecoin_flows.from_address IS 'sender, lower case';
COMMENT ON COLUMN stablecoin_flows.to_address IS 'receiver, lower case';
COMMENT ON COLUMN stablecoin_flows.amount IS 'in whole tokens, exact';
COMMENT ON COLUMN stablecoin_flows.from_entity IS 'whose wallet the sender is, as first seen; NULL: nobody we know';
COMMENT ON COLUMN stablecoin_flows.to_entity IS 'whose wallet the receiver is, as first seen; NULL: nobody we know';
COMMENT ON COLUMN stablecoin_flows.label_version IS 'the label list by which the entities were first seen';

COMMENT ON COLUMN watermarks.watermark IS 'every record known up to here has landed from this partition';

COMMENT ON TABLE consumer_offsets IS 'Where each consumer goes on in each partition, written in the transaction of the rows it brought.';
COMMENT ON COLUMN consumer_offsets.consumer IS 'who reads: landing, and whoever else keeps a place of its own';
COMMENT ON COLUMN consumer_offsets.next_offset IS 'the first offset that has not landed';
COMMENT ON COLUMN consumer_offsets.landed_total IS 'rows landed so far';
COMMENT ON COLUMN consumer_offsets.duplicate_total IS 'identical repetitions, ignored';
COMMENT ON COLUMN consumer_offsets.conflict_total IS 'different versions of a row, see row_conflicts';
COMMENT ON COLUMN consumer_offsets.dead_total IS 'messages that did not fit, see dead_letters';

COMMENT ON TABLE dead_letters IS 'Messages that did not fit, with their bytes: `liq dead-letters` lists and re-submits them.';
COMMENT ON COLUMN dead_letters.cluster_id IS 'the Kafka cluster id';
COMMENT ON COLUMN dead_letters.appended_at IS 'when Kafka appended it';
COMMENT ON COLUMN dead_letters.key_bytes IS 'the message''s key as it came';
COMMENT ON COLUMN dead_letters.value_bytes IS 'the message''s value as it came';
COMMENT ON COLUMN dead_letters.headers IS 'the message''s headers';
COMMENT ON COLUMN dead_letters.reason_code IS 'why, as one word for counting';
COMMENT ON COLUMN dead_letters.reason IS 'why, in words';
COMMENT ON COLUMN dead_letters.dead_at IS 'when it was put here';
COMMENT ON COLUMN dead_letters.resubmitted_at IS 'when it was sent again; NULL while it waits';

COMMENT ON TABLE row_conflicts IS 'A second, different version of a row: the one that was not kept, beside the one that was.';
COMMENT ON COLUMN row_conflicts.conflict_id IS 'running number';
COMMENT ON COLUMN row_conflicts.table_name IS 'the table of the row';
COMMENT ON COLUMN row_conflicts.row_key IS 'the row''s natural key';
COMMENT ON COLUMN row_conflicts.kept IS 'the version in the table at that time';
COMMENT ON COLUMN row_conflicts.resolution IS 'first_kept, archive_replaced (a correction) or canonical_again (a re-org undone)';
COMMENT ON COLUMN row_conflicts.cluster_id IS 'the Kafka cluster id of the second version';
COMMENT ON COLUMN row_conflicts.found_at IS 'when landing met it';

COMMENT ON TABLE ingest_gaps IS 'Holes: what could not be had, until it is healed or known to be lost for ever.';
COMMENT ON COLUMN ingest_gaps.gap_id IS 'running number';
COMMENT ON COLUMN ingest_gaps.symbol IS 'the coin; NULL: all of the source';
COMMENT ON COLUMN ingest_gaps.from_time IS 'the hole''s begin; NULL where only offsets are known';
COMMENT ON COLUMN ingest_gaps.to_time IS 'the hole''s end';
COMMENT ON COLUMN ingest_gaps.from_offset IS 'first missing Kafka offset, for holes in the log';
COMMENT ON COLUMN ingest_gaps.to_offset IS 'last missing Kafka offset';
COMMENT ON COLUMN ingest_gaps.cause IS 'why, in words';
COMMENT ON COLUMN ingest_gaps.is_permanent IS 'no source serves it any more';
COMMENT ON COLUMN ingest_gaps.found_at IS 'when it was noticed';
COMMENT ON COLUMN ingest_gaps.healed_at IS 'when it was filled; NULL while it is open';

COMMENT ON TABLE source_status IS 'How each source is now.';
COMMENT ON COLUMN source_status.state IS 'starting, up, degraded, down or off';
COMMENT ON COLUMN source_status.reason IS 'why, in words, unless it is up';
COMMENT ON COLUMN source_status.last_success IS 'its last good answer';
COMMENT ON COLUMN source_status.last_error IS 'when it last failed';
COMMENT ON COLUMN source_status.last_error_text IS 'what was wrong then';
COMMENT ON COLUMN source_status.budget IS 'per metered scope: what is used, of what, in how many seconds';

COMMENT ON TABLE wallet_labels IS 'Whose wallet an address is, by list; every list that was ever in force stays.';
COMMENT ON COLUMN wallet_labels.address IS 'the address, lower case';
COMMENT ON COLUMN wallet_labels.list_version IS 'the list, as in wallet_label_lists';
COMMENT ON COLUMN wallet_labels.entity IS 'the exchange, or the issuer';
COMMENT ON COLUMN wallet_labels.role IS 'what the wallet is for';
COMMENT ON COLUMN wallet_labels.source IS 'where the label is from';
COMMENT ON COLUMN wallet_labels.valid_from IS 'since when; NULL: always';
COMMENT ON COLUMN wallet_labels.valid_to IS 'until when; NULL: still';
COMMENT ON COLUMN wallet_label_lists.list_version IS 'the list';
COMMENT ON COLUMN wallet_label_lists.known_at IS 'when it came into force here';

COMMENT ON TABLE ticks IS 'Every committed grid point; one that is due and has no row was missed.';
COMMENT ON COLUMN ticks.stream IS 'market or flows';
COMMENT ON COLUMN ticks.started_at IS 'when the run that scored it began';
COMMENT ON COLUMN ticks.committed_at IS 'when its scores were committed: late if more than 5 s after time';
COMMENT ON COLUMN ticks.rows_landed IS 'rows that the run landed; stands with the run''s newest point';
COMMENT ON COLUMN ticks.late_rows IS 'of those, rows known before an earlier committed point';
COMMENT ON COLUMN ticks.dagster_run_id IS 'the run in Dagster';

COMMENT ON COLUMN feature_bars.bar_end IS 'the bar''s end on the 5-minute grid';
COMMENT ON COLUMN feature_bars.price_usd IS 'US dollars per coin';
COMMENT ON COLUMN feature_bars.open_interest_base IS 'coins';
COMMENT ON COLUMN feature_bars.funding_rate_per_8h IS 'fraction per 8 hours';
COMMENT ON COLUMN feature_bars.long_share IS 'share that is long, 0 to 1';
COMMENT ON COLUMN feature_bars.long_liquidated_cents IS 'US cents of longs liquidated in the bar';
COMMENT ON COLUMN feature_bars.short_liquidated_cents IS 'US cents of shorts liquidated in the bar';
COMMENT ON COLUMN feature_bars.built_at_time IS 'grid time of the tick that wrote it';
COMMENT ON COLUMN flow_bars.bar_end IS 'the bar''s end';
COMMENT ON COLUMN flow_bars.window_minutes IS 'minutes up to bar_end that are summed';
COMMENT ON COLUMN flow_bars.inflow_cents IS 'US cents to exchanges';
COMMENT ON COLUMN flow_bars.outflow_cents IS 'US cents from exchanges';
COMMENT ON COLUMN flow_bars.built_at_time IS 'grid time of the tick that wrote it';
COMMENT ON COLUMN feature_references.feature IS 'the feature whose distribution it is';
COMMENT ON COLUMN feature_references.day IS 'the UTC day it is for';
COMMENT ON COLUMN feature_references.built_at_time IS 'grid time of the tick that wrote it';
COMMENT ON COLUMN feature_references.observations IS 'bars it was made from';
COMMENT ON COLUMN feature_references.quantiles IS 'equally spaced order statistics, least first';

COMMENT ON TABLE liquidation_risk IS 'Liquidation risk, 0 to 100, of each symbol and grid point: the score with its parts. liquidation_risk_current gives the newest revision.';
COMMENT ON COLUMN liquidation_risk.score IS '0 to 100, sum of the known points; NULL below the least coverage';
COMMENT ON COLUMN liquidation_risk.score_high IS 'the score with the full budget of what is unknown added';
COMMENT ON COLUMN liquidation_risk.funding_points IS '0 to 30 of that side; NULL = unknown';
COMMENT ON COLUMN liquidation_risk.open_interest_points IS '0 to 30 of that side; NULL = unknown';
COMMENT ON COLUMN liquidation_risk.long_short_points IS '0 to 20 of that side; NULL = unknown';
COMMENT ON COLUMN liquidation_risk.liquidation_points IS '0 to 20 of that side; NULL = unknown';
COMMENT ON COLUMN liquidation_risk.long_squeeze IS 'total of the long side, 0 to 100';
COMMENT ON COLUMN liquidation_risk.short_squeeze IS 'total of the short side, 0 to 100';
COMMENT ON COLUMN liquidation_risk.coverage IS 'share of the budget that is known, 0 to 1';
COMMENT ON COLUMN liquidation_risk.inputs IS 'what it was made from: values, ages and venues';

COMMENT ON TABLE stablecoin_pressure IS 'Stablecoin pressure, -100 to +100; positive: net outflow from exchanges. stablecoin_pressure_current gives the newest revision.';
COMMENT ON COLUMN stablecoin_pressure.score IS '-100 to +100; NULL = unknown';
COMMENT ON COLUMN stablecoin_pressure.inflow_usd IS 'US dollars to exchanges in the window';
COMMENT ON COLUMN stablecoin_pressure.outflow_usd IS 'US dollars from exchanges in the window';
COMMENT ON COLUMN stablecoin_pressure.window_minutes IS 'minutes up to time that are summed';
COMMENT ON COLUMN stablecoin_pressure.coverage IS 'share of the expected flow sources that is fresh, 0 to 1';
COMMENT ON COLUMN stablecoin_pressure.inputs IS 'what it was made from';

COMMENT ON TABLE signals IS 'What follows from risk and pressure at each grid point. signals_current gives the newest revision.';
COMMENT ON COLUMN signals.risk IS 'liquidation_risk.score; NULL = unknown';
COMMENT ON COLUMN signals.pressure IS 'the newest pressure at most 60 s old; NULL = unknown';
COMMENT ON COLUMN signals.severity IS 'CRITICAL, WARNING, INFO, NONE, or UNKNOWN when the risk is';
COMMENT ON COLUMN signals.severity_possible IS 'the same with the risk''s score_high';
COMMENT ON COLUMN signals.flow_side_known IS 'false: the pressure was unknown and the risk alone decided';
COMMENT ON COLUMN signals.cascade_probability_1h IS 'probability of a cascade within 1 h, 0 to 1; NULL = unknown';
COMMENT ON COLUMN signals.cascade_probability_4h IS 'the same within 4 h';
COMMENT ON COLUMN signals.cascade_probability_24h IS 'the same within 24 h';
COMMENT ON COLUMN signals.baseline_volatility_percentile IS 'rank of the realised volatility within the symbol, 0 to 1: the baseline';

COMMENT ON COLUMN alerts.rule IS 'severity, early_warning or blind';
COMMENT ON COLUMN alerts.side IS 'whose squeeze: long or short';
COMMENT ON COLUMN alerts.severity IS 'its level now';
COMMENT ON COLUMN alerts.peak_severity IS 'the highest level it reached';
COMMENT ON COLUMN alerts.state IS 'open or resolved';
COMMENT ON COLUMN alerts.opened_at IS 'when it opened';
COMMENT ON COLUMN alerts.changed_at IS 'when its level last changed';
COMMENT ON COLUMN alerts.calm_severity IS 'the highest level since calm_since';
COMMENT ON COLUMN alerts.told_at IS 'when people were told that level';
COMMENT ON COLUMN alerts.resolved_at IS 'when it was resolved';
COMMENT ON COLUMN alerts.resolved_because IS 'why, in words';
COMMENT ON COLUMN alerts.acknowledged_at IS 'when a person acknowledged it, wall clock';
COMMENT ON COLUMN alerts.acknowledged_by IS 'who';
COMMENT ON COLUMN alert_changes.time IS 'when, by the world''s clock';
COMMENT ON COLUMN alert_changes.kind IS 'opened, escalated, eased or resolved';
COMMENT ON COLUMN alert_changes.severity IS 'the level after it';
COMMENT ON COLUMN alert_changes.severity_before IS 'the level before it';
COMMENT ON COLUMN alert_changes.reason IS 'why, in words';
COMMENT ON COLUMN alert_changes.receipt IS 'the inputs and rule of that moment';
COMMENT ON COLUMN alert_pending.rule IS 'the rule that waits';
COMMENT ON COLUMN alert_pending.subject IS 'a symbol or a group';
COMMENT ON COLUMN alert_pending.severity IS 'the level that it would have';
COMMENT ON COLUMN alert_pending.since IS 'since when the condition has held';
COMMENT ON COLUMN outbox.outbox_id IS 'the message''s id, and its key on Kafka';
COMMENT ON COLUMN outbox.topic IS 'signals or alerts on Kafka; channels: people';
COMMENT ON COLUMN outbox.message_key IS 'the id of the row it tells';
COMMENT ON COLUMN outbox.payload IS 'what is sent';
COMMENT ON COLUMN outbox.state IS 'due, done, failed (given up) or held (not to be sent)';
COMMENT ON COLUMN outbox.held_reason IS 'why it is held';
COMMENT ON COLUMN outbox.attempts IS 'tries so far';
COMMENT ON COLUMN outbox.due_at IS 'not before';
COMMENT ON COLUMN outbox.done_at IS 'when it was delivered';
COMMENT ON COLUMN alert_deliveries.delivery_id IS 'running number';
COMMENT ON COLUMN alert_deliveries.outbox_id IS 'the message, as in outbox';
COMMENT ON COLUMN alert_deliveries.attempt IS 'which try, from 1';
COMMENT ON COLUMN alert_deliveries.attempted_at IS 'when, wall clock';
COMMENT ON COLUMN alert_deliveries.ok IS 'whether the channel took it';
COMMENT ON COLUMN alert_deliveries.error IS 'what was wrong otherwise';
COMMENT ON TABLE alert_outcomes IS 'What followed each alert, by label version.';
COMMENT ON COLUMN alert_outcomes.outcome IS 'right, late, false, or open while it cannot be judged';
COMMENT ON COLUMN alert_outcomes.lead_minutes IS 'minutes from the alert to the onset';
COMMENT ON COLUMN alert_outcomes.largest_move IS 'largest price move after it, as a fraction';
COMMENT ON COLUMN alert_outcomes.judged_at IS 'when it was judged';

COMMENT ON TABLE cascade_events IS 'Labelled cascades: what the alarms are judged by.';
COMMENT ON COLUMN cascade_events.event_id IS 'the event''s id';
COMMENT ON COLUMN cascade_events.horizon_hours IS 'hours of the label''s horizon';
COMMENT ON COLUMN cascade_events.starts_at IS 'first positive row of the chain';
COMMENT ON COLUMN cascade_events.onset_at IS 'first time past half the threshold in the direction of the largest move';
COMMENT ON COLUMN cascade_events.peak_at IS 'the extreme of that move';
COMMENT ON COLUMN cascade_events.ends_at IS 'end of the chain';
COMMENT ON COLUMN cascade_events.direction IS 'down or up';
COMMENT ON COLUMN cascade_events.price_move IS 'the largest move, as a fraction';
COMMENT ON COLUMN cascade_events.open_interest_move IS 'open interest in coins over it, as a fraction';
COMMENT ON COLUMN cascade_events.is_major IS 'the move reached twice the threshold, or 8 % with open interest down 8 %';
COMMENT ON COLUMN cascade_events.is_systemic IS 'onsets in three or more symbols within 30 min';
COMMENT ON COLUMN cascade_events.is_first_shock IS 'no onset in any symbol in the 24 h before';
COMMENT ON COLUMN cascade_events.found_at IS 'when it was labelled';
COMMENT ON TABLE models IS 'The probability models: shipped, champion, candidates, retired.';
COMMENT ON COLUMN models.model_id IS 'the model';
COMMENT ON COLUMN models.state IS 'shipped, champion (in force), candidate (in shadow) or retired';
COMMENT ON COLUMN models.trained_from IS 'begin of what it learned from';
COMMENT ON COLUMN models.trained_to IS 'end of what it learned from';
COMMENT ON COLUMN models.parameters IS 'everything needed to compute it';
COMMENT ON COLUMN models.facts IS 'what is known of it: base rates, thresholds, figures';
COMMENT ON COLUMN models.promoted_at IS 'when it became the champion';
COMMENT ON TABLE evaluation_runs IS 'Reports of `liq evaluate`, with what they rest on.';
COMMENT ON COLUMN evaluation_runs.evaluation_id IS 'the report''s id';
COMMENT ON COLUMN evaluation_runs.from_time IS 'begin of what was evaluated';
COMMENT ON COLUMN evaluation_runs.to_time IS 'end of what was evaluated';
COMMENT ON COLUMN evaluation_runs.config_hash IS 'hash of the settings';
COMMENT ON COLUMN evaluation_runs.data_hash IS 'hash of the data';
COMMENT ON COLUMN evaluation_runs.report IS 'report.json as it was written';
COMMENT ON TABLE evaluation_metrics IS 'Each figure of each report.';
COMMENT ON COLUMN evaluation_metrics.evaluation_id IS 'the report';
COMMENT ON COLUMN evaluation_metrics.subject IS 'what was measured: a score, a probability, a rule or a baseline';
COMMENT ON COLUMN evaluation_metrics.horizon_hours IS 'hours of the label''s horizon';
COMMENT ON COLUMN evaluation_metrics.metric IS 'the figure';
COMMENT ON COLUMN evaluation_metrics.value IS 'its value; NULL where there were too few events';
COMMENT ON COLUMN evaluation_metrics.value_low IS 'low end of its 90 % interval';
COMMENT ON COLUMN evaluation_metrics.value_high IS 'high end of its 90 % interval';

COMMENT ON COLUMN poll_state.feed IS 'the kind of data, or * for the source as a whole';
COMMENT ON COLUMN poll_state.next_due IS 'when it is asked again';
COMMENT ON COLUMN poll_state.last_attempt IS 'when it was last asked';
COMMENT ON COLUMN poll_state.last_success IS 'its last good answer';
COMMENT ON COLUMN poll_state.failures IS 'failures since then';
COMMENT ON COLUMN poll_state.last_error IS 'what was wrong last';
COMMENT ON COLUMN venue_instruments.native_symbol IS 'the venue''s own name; NULL: it does not list the coin';
COMMENT ON COLUMN venue_instruments.funding_interval_hours IS 'hours between its settlements';
COMMENT ON COLUMN request_budgets.scope IS 'the metered scope, such as binance/ip';
COMMENT ON COLUMN request_budgets.spent IS 'cost by slice of the window';
COMMENT ON COLUMN request_budgets.blocked_until IS 'until when the venue refuses us';
COMMENT ON COLUMN request_budgets.blocked_reason IS 'in its words';
COMMENT ON COLUMN chain_blocks.block_number IS 'height';
COMMENT ON COLUMN chain_blocks.block_hash IS 'hash';
COMMENT ON COLUMN chain_blocks.block_time IS 'its time by the chain';
COMMENT ON COLUMN chain_blocks.is_canonical IS 'false once a re-org has removed it';
COMMENT ON COLUMN chain_blocks.read_at IS 'when we read it';
COMMENT ON COLUMN chain_blocks.orphaned_at IS 'when the re-org was seen';

COMMENT ON COLUMN rollup_progress.rolled_to IS 'rows written before this are in';
COMMENT ON TABLE rollup_frontiers IS 'From where on the roll-up views compute: the begin of each world''s newest hour. Earlier buckets are stored.';
COMMENT ON COLUMN rollup_frontiers.live_from IS 'stored before, computed from here on';
COMMENT ON TABLE rollup_prices IS 'Stored buckets of prices; read prices_1m, prices_5m, prices_1h.';
COMMENT ON COLUMN rollup_prices.price_usd_first IS 'US dollars, of the first event_time';
COMMENT ON COLUMN rollup_prices.price_usd_high IS 'the highest';
COMMENT ON COLUMN rollup_prices.price_usd_low IS 'the lowest';
COMMENT ON COLUMN rollup_prices.price_usd_last IS 'US dollars, of the last event_time';
COMMENT ON TABLE rollup_funding_rates IS 'Stored buckets of funding_rates; read funding_rates_1m, _5m, _1h.';
COMMENT ON COLUMN rollup_funding_rates.kind IS 'predicted or settled';
COMMENT ON COLUMN rollup_funding_rates.rate_per_8h_high IS 'fraction per 8 h, the highest';
COMMENT ON COLUMN rollup_funding_rates.rate_per_8h_low IS 'the lowest';
COMMENT ON COLUMN rollup_funding_rates.rate_per_8h_last IS 'of the last event_time';
COMMENT ON TABLE rollup_open_interest IS 'Stored buckets of open_interest; read open_interest_1m, _5m, _1h.';
COMMENT ON COLUMN rollup_open_interest.open_interest_base_high IS 'coins, the highest';
COMMENT ON COLUMN rollup_open_interest.open_interest_base_low IS 'coins, the lowest';
COMMENT ON COLUMN rollup_open_interest.open_interest_base_last IS 'coins, of the last event_time';
COMMENT ON COLUMN rollup_open_interest.open_interest_usd_last IS 'US dollars, of the last event_time; NULL = unknown then';
COMMENT ON TABLE rollup_long_short_ratio IS 'Stored buckets of long_short_ratio; read long_short_ratio_1m, _5m, _1h.';
COMMENT ON COLUMN rollup_long_short_ratio.kind IS 'as in long_short_ratio';
COMMENT ON COLUMN rollup_long_short_ratio.period_minutes IS 'as in long_short_ratio';
COMMENT ON COLUMN rollup_long_short_ratio.long_share_last IS 'share that is long, of the last event_time';
COMMENT ON COLUMN rollup_long_short_ratio.ratio_last IS 'long over short, of the last event_time';
COMMENT ON TABLE rollup_liquidations IS 'Stored buckets of liquidations; read liquidations_1m, _5m, _1h.';
COMMENT ON COLUMN rollup_liquidations.liquidated_side IS 'the side whose positions were closed by force';
COMMENT ON COLUMN rollup_liquidations.notional_usd IS 'US dollars in all';
COMMENT ON COLUMN rollup_liquidations.quantity_base IS 'coins in all';
COMMENT ON COLUMN rollup_liquidations.events IS 'how many';
COMMENT ON COLUMN rollup_stablecoin_flows.direction IS 'as first seen';
COMMENT ON COLUMN rollup_stablecoin_flows.amount IS 'whole tokens in all, exact';
COMMENT ON COLUMN rollup_stablecoin_flows.transfers IS 'how many';
COMMENT ON COLUMN rollup_liquidation_risk.score_max IS 'the highest score';
COMMENT ON COLUMN rollup_liquidation_risk.score_last IS 'the last score; NULL = unknown then';
COMMENT ON COLUMN rollup_liquidation_risk.score_high_max IS 'the highest score_high';
COMMENT ON COLUMN rollup_liquidation_risk.coverage_min IS 'the least coverage';
COMMENT ON COLUMN rollup_liquidation_risk.long_squeeze_max IS 'the highest total of the long side';
COMMENT ON COLUMN rollup_liquidation_risk.short_squeeze_max IS 'the highest total of the short side';
COMMENT ON COLUMN rollup_liquidation_risk.funding_points_avg IS 'mean of the known ones';
COMMENT ON COLUMN rollup_liquidation_risk.open_interest_points_avg IS 'mean of the known ones';
COMMENT ON COLUMN rollup_liquidation_risk.long_short_points_avg IS 'mean of the known ones';
COMMENT ON COLUMN rollup_liquidation_risk.liquidation_points_avg IS 'mean of the known ones';
COMMENT ON TABLE rollup_stablecoin_pressure IS 'Stored buckets of the current stablecoin_pressure; read stablecoin_pressure_1m, _5m, _1h.';
COMMENT ON COLUMN rollup_stablecoin_pressure.score_max IS 'the highest';
COMMENT ON COLUMN rollup_stablecoin_pressure.score_min IS 'the lowest';
COMMENT ON COLUMN rollup_stablecoin_pressure.score_last IS 'the last; NULL = unknown then';
COMMENT ON COLUMN rollup_stablecoin_pressure.score_avg IS 'mean of the known ones';
COMMENT ON COLUMN rollup_stablecoin_pressure.coverage_min IS 'the least coverage';
COMMENT ON COLUMN rollup_signals.risk_max IS 'the highest risk';
COMMENT ON COLUMN rollup_signals.pressure_min IS 'the lowest pressure';
COMMENT ON COLUMN rollup_signals.cascade_probability_4h_max IS 'the highest probability within 4 h';
COMMENT ON COLUMN rollup_signals.critical_points IS 'points that were CRITICAL';
COMMENT ON COLUMN rollup_signals.warning_points IS 'points that were WARNING';
COMMENT ON COLUMN rollup_signals.info_points IS 'points that were INFO';
COMMENT ON COLUMN rollup_signals.unknown_points IS 'points that were UNKNOWN';
COMMENT ON TABLE rollup_ticks IS 'Stored buckets of ticks; read ticks_1m, ticks_5m, ticks_1h.';
COMMENT ON COLUMN rollup_ticks.stream IS 'market or flows';
COMMENT ON COLUMN rollup_ticks.delay_seconds_max IS 'longest time from a grid point to its commit, in seconds; says nothing in a recorded world';
COMMENT ON COLUMN rollup_ticks.late_ticks IS 'ticks committed more than 5 s after their time';
COMMENT ON COLUMN rollup_ticks.rows_landed IS 'rows landed by their runs';
COMMENT ON COLUMN rollup_ticks.late_rows IS 'of those, late ones';
COMMENT ON COLUMN rollup_ticks.first_time IS 'first grid point in the bucket';
COMMENT ON COLUMN rollup_ticks.last_time IS 'last grid point in the bucket';
COMMENT ON TABLE storage_samples IS 'How large each part was, one figure per UTC day: `liq status` tells growth from them.';
COMMENT ON COLUMN storage_samples.part IS 'postgres (our database), dagster (its tables) or kafka (its log)';
COMMENT ON COLUMN storage_samples.day IS 'the UTC day';
COMMENT ON COLUMN storage_samples.sampled_at IS 'the newest measurement of the day';
COMMENT ON COLUMN storage_samples.size_bytes IS 'bytes then';
