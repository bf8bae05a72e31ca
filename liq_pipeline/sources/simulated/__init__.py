"""A market that does not exist, for a first run without keys, for demonstrations, and for tests with known causes.

market.py is the market, feeds.py what simulated venues publish about it, transfers.py the stablecoins that move beside
it, world.py which market a home plays and since when, source.py the whole as a stream of steps. See docs/simulator.md.
"""
