"""Every figure of docs/levels.md anew, and the shipped methods: python -m liq_pipeline.evaluation.levels.published.

Belongs here: which worlds are played and which data are read. Does not: any figure itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from liq_pipeline.evaluation.levels import as_feature, fit, forced_orders, later_moves
from liq_pipeline.evaluation.levels.truth import judged
from liq_pipeline.evaluation.levels.worlds import COMPLETE_VENUE, JudgedWorld, play, unknown_forced_orders
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.development import five_minute_panel
from liq_pipeline.scoring.levels.method import METHODS_FILE, Method, Tier, shipped_methods

FIT_SEEDS: Final = tuple(f"fit-{number}" for number in range(1, 5))
JUDGE_SEEDS: Final = tuple(f"judge-{number}" for number in range(1, 13))
DAYS: Final = 30
DISTANCES: Final = np.round(np.geomspace(0.004, 0.32, 40), 6)
"""From 0.4 % (125 x with 0.4 % maintenance) to 32 % (3 x)."""

SIMULATED: Final = Method(
    name="simulated",
    window_hours=120,
    block_minutes=30,
    closed_per_hour=0.0328,
    tiers=tuple(Tier(float(distance), 0.0, 0.0) for distance in DISTANCES),
    source="",
)
"""Holding for 30 h was the likeliest of 22, 26, 30 and 40 h on the worlds of the fit; 15 to 60 min differ little."""
REAL_MEDIAN: Final = 0.06
REAL_WIDTH: Final = 0.8
REAL_SHARE: Final = 0.4


def real_method() -> Method:
    """Assumed, not fitted: ten days of one venue are too little. See docs/levels.md."""
    step = np.log(DISTANCES[1] / DISTANCES[0])
    density = np.exp(-0.5 * (np.log(DISTANCES / REAL_MEDIAN) / REAL_WIDTH) ** 2) * step
    weight = REAL_SHARE * density / (REAL_WIDTH * np.sqrt(2.0 * np.pi))
    return Method(
        name="real",
        window_hours=120,
        block_minutes=60,
        closed_per_hour=0.04,
        tiers=tuple(Tier(float(d), round(float(w), 6), 0.0) for d, w in zip(DISTANCES, weight, strict=True)),
        source=(
            "assumed before any figure was looked at: 40 % of what is opened can be closed by force, log-normal around "
            "6 % from its price (width 0.8); all of it changes hands about once a day"
        ),
    )


def simulated_method(worlds: Sequence[JudgedWorld]) -> Method:
    """Fitted from the forced orders of the simulated venue that shows them all."""
    data = [fit.crossed(world.bars, SIMULATED, (COMPLETE_VENUE,)) for world in worlds]
    weight, lean_weight = fit.fitted_weights(data, DISTANCES)
    source = f"fitted from {COMPLETE_VENUE}'s forced orders in {len(worlds)} simulated worlds of {DAYS} days"
    return fit.with_weights(SIMULATED, weight, lean_weight, source)


def figures(fitted: Sequence[JudgedWorld], judging: Sequence[JudgedWorld], data: Path | None) -> dict[str, Any]:
    """All figures; the real ones where the folder of development data is given."""
    methods = shipped_methods()
    found: dict[str, Any] = {"simulator": judged(judging, fitted, methods["simulated"])}
    blind = [
        JudgedWorld(w.seed, unknown_forced_orders(w.bars), w.truth_at, w.truth_usd, w.truth_coins) for w in judging
    ]
    found["simulator, forced orders unseen"] = judged(blind, fitted, methods["simulated"])
    found["simulator, by the assumptions for real markets"] = judged(judging, fitted, methods["real"])
    if data is not None:
        found["forced orders, 1 h before"] = forced_orders.lifts(data, methods["real"], 1)
        found["forced orders, a day before"] = forced_orders.lifts(data, methods["real"], 24)
        bars = bars_of(five_minute_panel(data))
        maps = later_moves.hourly_maps(bars, methods["real"])
        found["moves"] = later_moves.further_into_fuel(bars, maps)
        found["as a feature"] = as_feature.trial(data, methods["real"])
    return found


def main(arguments: Sequence[str]) -> None:
    """--ship fits and writes the methods; without it every figure is printed as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ship", action="store_true", help="fit, and write the methods' file")
    parser.add_argument("--data", type=Path, help="folder of development data, for the real figures")
    options = parser.parse_args(arguments)
    fitted = [play(seed, DAYS) for seed in FIT_SEEDS]
    if options.ship:
        ship(fitted)
        return
    sys.stdout.write(json.dumps(figures(fitted, [play(seed, DAYS) for seed in JUDGE_SEEDS], options.data), indent=1))


def ship(fitted: Sequence[JudgedWorld]) -> None:
    """Write the methods' file."""
    from liq_pipeline import scoring

    file = Path(scoring.__file__).parent / "models" / METHODS_FILE
    methods = {"real": real_method().to_json(), "simulated": simulated_method(fitted).to_json()}
    file.write_text(json.dumps(methods, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
