"""Panels: history of many symbols on one regular grid, as arrays, wherever it comes from.

Lives here: panel.py (the format of `--panel`), as_bars.py (a panel as the bars that scoring reads), and one module per
origin: stored.py, simulated.py, published.py, development.py. Does not: labels (labels/) or figures (figures/).
"""
