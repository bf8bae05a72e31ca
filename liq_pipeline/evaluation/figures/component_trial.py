"""A score component tried out before it is wired: what it would be worth on a panel.

Belongs here: judging one mapping alone and added to the score. Does not: the score (scoring/risk.py), reports
(evaluation/report/run.py). CONTRIBUTING.md walks through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.figures import metrics as m
from liq_pipeline.evaluation.figures.ablations import HOURS, score_risk, within
from liq_pipeline.evaluation.figures.rows import Rows
from liq_pipeline.evaluation.labels.version_1 import label_panel
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.risk import TOPIC, venue_mean
from liq_pipeline.settings import Settings

Floats = NDArray[np.float64]
Component = Callable[[Mapping[str, Floats], Mapping[str, Floats]], tuple[Floats, Floats]]
"""(values, percentiles), each feature name -> (symbols, venues, points), to (long points, short points)."""


def try_component(panel: Panel, component: Component, settings: Settings) -> dict[str, Any]:
    """Within-symbol figures at 4 h of the component alone, of the score, and of the score with it added."""
    expected = {topic: np.ones(1, dtype=bool) for topic in TOPIC.values()}
    risk = score_risk(bars_of(panel), expected, settings)
    long, short = (venue_mean(points) for points in component(risk.features, risk.percentiles))
    alone = np.fmax(long, short)
    both = np.fmax(risk.long_squeeze + np.nan_to_num(long), risk.short_squeeze + np.nan_to_num(short))
    both = np.where(np.isnan(risk.score) | np.isnan(alone), np.nan, both)
    labels, _ = label_panel(
        panel.time, panel.symbols, panel["price_usd"], panel["open_interest_base"], panel.step_seconds
    )
    day = panel.time // 86_400 - int(panel.time[0]) // 86_400
    everywhere = np.ones(alone.shape, dtype=bool)
    rows = Rows(everywhere, day, int(day[-1]) + 1, panel.time % 3600 == 0, m.day_draws(int(day[-1]) + 1))
    known = np.isfinite(both)
    return {
        "alone": within(alone, labels[HOURS], rows, known),
        "score": within(risk.score, labels[HOURS], rows, known),
        "score with it": within(both, labels[HOURS], rows, known),
    }
