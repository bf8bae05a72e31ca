"""The domain: records, worlds, units. No I/O, no clock, no Dagster; time is always an argument."""
