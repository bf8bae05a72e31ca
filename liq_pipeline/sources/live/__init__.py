"""The live sources, one module per venue: what it offers, how to ask, and what its answers mean."""
