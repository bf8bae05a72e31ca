"""Alerts: when something is worth saying, what is said, and getting it to people."""
