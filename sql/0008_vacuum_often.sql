-- BRIN indexes cover what vacuum has seen; everything after it is read in full. By default an insert-only table is
-- vacuumed when it has grown by a fifth, which is months of rows. Autosummarize (0007) asks once per block range and
-- fills the server's log in a bulk load, so vacuum comes more often in its place.
-- Belongs here: when the large tables are vacuumed. Does not: indexes.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['prices', 'funding_rates', 'open_interest', 'long_short_ratio', 'liquidations',
                                'stablecoin_flows', 'liquidation_risk', 'stablecoin_pressure', 'signals', 'ticks'] LOOP
        EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_insert_scale_factor = 0.01)', name);
        EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_insert_scale_factor = 0.01,'
                       ' autovacuum_vacuum_scale_factor = 0.05)', 'rollup_' || name);
        EXECUTE format('ALTER INDEX %I RESET (autosummarize)', 'rollup_' || name || '_bucket');
    END LOOP;
    FOREACH name IN ARRAY ARRAY['prices_landed', 'funding_rates_landed', 'open_interest_landed',
                                'long_short_ratio_landed', 'liquidations_landed', 'stablecoin_flows_landed',
                                'liquidation_risk_created', 'stablecoin_pressure_created', 'signals_created',
                                'prices_event_time', 'funding_rates_event_time', 'open_interest_event_time',
                                'long_short_ratio_event_time', 'liquidations_event_time', 'ticks_committed'] LOOP
        EXECUTE format('ALTER INDEX %I RESET (autosummarize)', name);
    END LOOP;
END
$$;
