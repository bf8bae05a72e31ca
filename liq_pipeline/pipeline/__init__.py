"""The pipeline's steps: what a tick and a re-score do, in which order, in which transaction. No Dagster here."""
