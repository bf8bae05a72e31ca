"""Walk-forward probabilities: a fold learns from nothing that its own time could show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from liq_pipeline.evaluation.labels.version_1 import label_panel
from liq_pipeline.evaluation.models.walk_forward import walk_forward
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.model import HORIZON_HOURS
from liq_pipeline.scoring.probability import feature_arrays
from liq_pipeline.settings import Settings
from liq_pipeline_tests.history_support import made_panel


def predicted(panel: Panel) -> dict[int, np.ndarray]:
    labels, events = label_panel(
        panel.time, panel.symbols, panel["price_usd"], panel["open_interest_base"], panel.step_seconds
    )
    return dict(walk_forward(panel, feature_arrays(bars_of(panel)), labels, events, Settings()).by_hours)


def with_noise_from(panel: Panel, first: int) -> Panel:
    """Prices and open interest from the row on are another market's, full of cascades."""
    rng = np.random.default_rng(5)
    columns = {name: values.copy() for name, values in panel.columns.items()}
    for name in ("price_usd", "open_interest_base"):
        columns[name][:, first:] = rng.uniform(10, 1000, columns[name][:, first:].shape)
    return replace(panel, columns=columns)


def test_a_fold_learns_nothing_of_its_own_time_nor_from_labels_that_reach_into_it() -> None:
    panel = made_panel()
    second = int(np.flatnonzero(panel.time == np.datetime64("2026-07-01", "s").astype(np.int64))[0])
    noise_from = second + 5
    found, again = predicted(panel), predicted(with_noise_from(panel, noise_from))
    for hours in HORIZON_HOURS:
        before, after = found[hours][:, :noise_from], again[hours][:, :noise_from]
        assert np.isfinite(before[:, second:]).all()
        assert before.tobytes() == after.tobytes()


def test_what_a_fold_could_know_does_move_it() -> None:
    panel = made_panel()
    second = int(np.flatnonzero(panel.time == np.datetime64("2026-07-01", "s").astype(np.int64))[0])
    other = predicted(with_noise_from(panel, second - 10 * 24))
    assert (other[4][:, second + 12 * 24] != predicted(panel)[4][:, second + 12 * 24]).all()
