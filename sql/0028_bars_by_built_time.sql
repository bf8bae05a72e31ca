-- Bars that were built since the last tick, found without walking a week of them (store/lookback/bar_cache.py).
CREATE INDEX feature_bars_built ON feature_bars USING brin (built_at_time) WITH (pages_per_range = 16, autosummarize = on);
