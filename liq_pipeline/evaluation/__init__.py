"""Evaluation: how good scores and alarms are, in public, and the models that this teaches.

Lives here: labels, panels, figures, judged pages, reports, training. Does not: anything that a tick needs; scoring and
alerting look at nothing in here, so that no score can learn from its own exam.

By what you are after:
  labels/   what a cascade is, one module per label version
  panels/   history as arrays on one grid, wherever it comes from
  figures/  row-wise figures, baselines, ablations
  paging/   desk figures: pages as people would have had them, and what followed each alert
  levels/   how often the liquidation map was right
  models/   fitting, walk-forward, shadow, the gate of a promotion, the shipped model
  report/   `liq evaluate`: report/run is the way through all of the above
"""
