"""A panel as the bars that scoring stands on.

Belongs here: the change of shape and units. Does not: scores.
"""

from __future__ import annotations

import numpy as np

from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.bars import UNKNOWN_CENTS, BarArrays, Floats, Integers

VENUE = "panel"


def bars_of(panel: Panel) -> BarArrays:
    """The panel with the single venue `panel`; a long/short ratio becomes a share, USD become integer cents."""
    ratio = panel["long_short_ratio"]
    return BarArrays(
        symbols=panel.symbols,
        venues=(VENUE,),
        start_seconds=int(panel.time[0]),
        step_seconds=panel.step_seconds,
        price_usd=panel["price_usd"][:, np.newaxis, :],
        open_interest_base=panel["open_interest_base"][:, np.newaxis, :],
        funding_rate_per_8h=panel["funding_rate_per_8h"][:, np.newaxis, :],
        long_share=(ratio / (1.0 + ratio))[:, np.newaxis, :],
        long_liquidated_cents=_cents(panel["long_liquidations_usd"]),
        short_liquidated_cents=_cents(panel["short_liquidations_usd"]),
    )


def _cents(usd: Floats) -> Integers:
    known = np.isfinite(usd)
    return np.where(known, np.rint(np.where(known, usd, 0.0) * 100.0), UNKNOWN_CENTS).astype(np.int64)[:, np.newaxis, :]
