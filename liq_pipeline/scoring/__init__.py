"""Scoring: pure functions from observations to points, scores, signals and probabilities. No I/O, no clock.

A number walks through the modules in this order: bars.py (rows onto a grid) with windows.py (rolling windows, bit for
bit), features.py, references.py (a value against its own past), risk.py and pressure.py (points), severity.py;
probability.py (the shipped kind of model; its file lies in models/), model.py (what any model offers to the tick),
early_warning.py; under_way/ (whether a cascade has begun); levels/ (where positions would be closed by force);
assemble.py (with the inputs and words that explain it) makes what results.py declares. version.py names all of it.
Does not: reading rows (store/inputs/), training or judging (evaluation/).
"""
