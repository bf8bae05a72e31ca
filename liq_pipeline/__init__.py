"""liq_pipeline: early warning of crypto liquidation cascades. Importing it has no side effects."""
