"""Scoring: pure functions from observations to points, scores, signals and probabilities. No I/O, no clock."""
