"""The live sources, one module per venue: what it offers, how to ask, and what its answers mean.

A shelf: open the venue you are after. To add one, open dydx.py first, the smallest, and copy it; then one line in
registry.py of the room above. base.py is what all of them are made of (feeds, streams, histories, and the units
that records want), instruments.py their contracts, values.py numbers and times read strictly, series.py rows that
several write alike. Does not: ask (access/, polling/), keep a websocket alive (collector/), the chain (chain/).
"""
