"""Learning from years of the public archives: `liq model train --archive`, and the same as partitions in Dagster.

Lives here: plan.py (which coins and quarters, and where their files lie), months.py (the archive's files as one Parquet
per symbol and month), features.py (features and labels per symbol and quarter), market.py (the terms that need all
symbols, in a second pass), fit.py (walk-forward by quarters, one candidate and its report), run.py (the way through all
of it, in worker processes); and of inputs on trial, where they are asked for: samples.py (months of premium and depth),
inputs.py (the groups and their features), ablation.py (with and without, and the verdict). Does not: the archive's
layout and quirks (sources/archives/), the regression (evaluation/models/training.py), the models' table
(pipeline/models.py).

Every step writes whole files that hold nothing but what their inputs say, so a run that is killed goes on where it was,
and any number of processes make the same bytes.
"""
