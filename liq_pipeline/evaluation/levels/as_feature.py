"""The liquidation map tried as a feature of the probabilities: kept only if the walk-forward gains on both panels.

Belongs here: features from hourly maps, and both models with and without them on the same rows. Does not: the models
that are shipped (evaluation/models/).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from liq_pipeline.evaluation.figures import metrics
from liq_pipeline.evaluation.labels.version_1 import POSITIVE, UNKNOWN, label_panel, threshold
from liq_pipeline.evaluation.levels.later_moves import HourlyMaps, hourly_maps
from liq_pipeline.evaluation.models import under_way
from liq_pipeline.evaluation.models.training import EMBARGO_SECONDS, fit_logistic, training_rows
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.development import five_minute_panel, hourly_panel
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.bars import Booleans, Floats, Integers
from liq_pipeline.scoring.levels.cohorts import LONG, SHORT
from liq_pipeline.scoring.levels.fuel import CLUSTER_FACTOR, REACH
from liq_pipeline.scoring.levels.method import BIN_WIDTH, BINS, Method
from liq_pipeline.scoring.model import HORIZON_HOURS
from liq_pipeline.scoring.probability import FEATURES, feature_arrays
from liq_pipeline.scoring.under_way.excursions import DIRECTIONS, DOWN, market
from liq_pipeline.scoring.under_way.rules import OWN_FEATURES, market_features, own_features

FUEL_FEATURES: Final = ("fuel_below", "fuel_above", "nearest_cluster")
MIN_TRAINING_DAYS: Final = 45
HOUR: Final = 3600
FLOOR_SHARE: Final = 1e-4
"""Of open interest: the logarithm of no fuel at all is not minus infinity."""
FARTHEST: Final = 5.0
"""Distances to a cluster are held to so many thresholds."""


def trial(data: Path, method: Method) -> dict[str, Any]:
    """Both models on both panels; the under-way model needs 5-min rows and so has one."""
    found: dict[str, Any] = {}
    for name, panel in (("hourly", hourly_panel(data)), ("five_minute", five_minute_panel(data))):
        maps = hourly_maps(bars_of(panel), method)
        found[f"cascade_probability, {name}"] = cascade_trial(panel, maps)
        if panel.step_seconds < HOUR:
            found[f"under_way_probability, {name}"] = under_way_trial(panel, maps)
    return found


def fuel_features(panel: Panel, maps: HourlyMaps, hours: int) -> dict[str, Floats]:
    """(symbols, times) of the newest hourly map: log share of open interest within theta on each side, and the distance
    of the nearest cluster in theta."""
    theta = threshold(panel["price_usd"], panel.step_seconds, hours)
    at = np.searchsorted(maps.at, np.arange(panel.time.size), side="right") - 1
    bins = np.clip(np.rint(theta / BIN_WIDTH), 1, BINS)
    found = {name: np.full(theta.shape, np.nan) for name in FUEL_FEATURES}
    for symbol in range(len(panel.symbols)):
        known = (at >= 0) & np.isfinite(theta[symbol])
        reach = np.where(known, bins[symbol], 1).astype(np.int64)
        for side, name in ((LONG, "fuel_below"), (SHORT, "fuel_above")):
            share = maps.share[:, side, symbol]
            ahead = np.cumsum(share, axis=1)[np.maximum(at, 0), reach - 1]
            found[name][symbol] = np.where(known, np.log(FLOOR_SHARE + ahead), np.nan)
        distance = np.minimum(*(_cluster_distance(maps.share[:, side, symbol]) for side in (LONG, SHORT)))
        with np.errstate(invalid="ignore"):
            relative = distance[np.maximum(at, 0)] / theta[symbol]
        found["nearest_cluster"][symbol] = np.where(known, np.minimum(relative, FARTHEST), np.nan)
    return found


def cascade_trial(panel: Panel, maps: HourlyMaps) -> dict[str, Any]:
    """Walk-forward by month, each month by a fit on the months before; hourly rows."""
    found = dict(feature_arrays(bars_of(panel)))
    for hours in HORIZON_HOURS:
        found.update({f"{name}@{hours}": values for name, values in fuel_features(panel, maps, hours).items()})
    labels, _ = label_panel(
        panel.time, panel.symbols, panel["price_usd"], panel["open_interest_base"], panel.step_seconds
    )
    rows = training_rows(panel, found, labels, sample_seconds=HOUR)
    # Rows come symbol after symbol; their place tells which.
    columns = np.flatnonzero(panel.time % max(panel.step_seconds, HOUR) == 0)
    known = np.isfinite(panel["price_usd"][:, columns])
    symbol = np.broadcast_to(np.arange(len(panel.symbols))[:, None], known.shape)[known]
    month = rows.time.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    result: dict[str, Any] = {}
    for hours in HORIZON_HOURS:
        said = {name: np.full(rows.time.size, np.nan) for name in ("without", "with")}
        for fold in np.unique(month):
            inside = month == fold
            first = int(rows.time[inside].min())
            past = rows.between(-np.inf, first - EMBARGO_SECONDS)
            if first - int(panel.time[0]) < MIN_TRAINING_DAYS * 86_400 or not (past.labels[hours] == POSITIVE).any():
                continue
            part = {name: values[inside] for name, values in rows.features.items()}
            for name, names in (("without", list(FEATURES)), ("with", [*FEATURES, *FUEL_FEATURES])):
                said[name][inside] = fit_logistic(past, hours, names, calibrate=False).log_odds(part, hours)
        usable = np.isfinite(said["with"]) & np.isfinite(said["without"]) & (rows.labels[hours] != UNKNOWN)
        result[f"{hours}h"] = _compared(
            symbol[usable],
            rows.labels[hours][usable] == POSITIVE,
            said["with"][usable],
            said["without"][usable],
            rows.time[usable],
        )
    return result


def under_way_trial(panel: Panel, maps: HourlyMaps) -> dict[str, Any]:
    """The symbol's half of the under-way model, each week by a fit on the others, with the fuel ahead of the move."""
    from sklearn.linear_model import LogisticRegression

    of = under_way.material(panel)
    fuel = fuel_features(panel, maps, under_way.HORIZON_HOURS)
    parts: list[tuple[Integers, Booleans, Floats, Floats, Integers]] = []
    for inside, others in under_way.weeks_of(panel.time):
        if not any((of.market_label[d] & others).any() for d in DIRECTIONS):
            continue
        whole = under_way.fit(of, others).market
        columns, labels, is_test, is_training, symbols, times = [], [], [], [], [], []
        for d in DIRECTIONS:
            side = of.found.sides[d]
            own = own_features(side, of.found, whole.log_odds(market_features(market(side))))
            ahead = fuel["fuel_below" if d == DOWN else "fuel_above"]
            stack = np.stack([*(own[name] for name in OWN_FEATURES), ahead, fuel["nearest_cluster"]], axis=-1)
            chosen = (side.run > under_way.OWN_RUN) & np.isfinite(stack).all(-1)
            columns.append(stack[chosen])
            labels.append(of.own_label[d][chosen])
            is_test.append(np.broadcast_to(inside, chosen.shape)[chosen])
            is_training.append(np.broadcast_to(others, chosen.shape)[chosen])
            symbols.append(np.broadcast_to(np.arange(chosen.shape[0])[:, None], chosen.shape)[chosen])
            times.append(np.broadcast_to(panel.time, chosen.shape)[chosen])
        raw, target = np.concatenate(columns), np.concatenate(labels)
        test, training = np.concatenate(is_test), np.concatenate(is_training)
        said = []
        for count in (len(OWN_FEATURES) + 2, len(OWN_FEATURES)):
            mean, deviation = raw[training, :count].mean(axis=0), raw[training, :count].std(axis=0) + 1e-9
            fitted = LogisticRegression(C=under_way.PENALTY, max_iter=500)
            fitted.fit((raw[training, :count] - mean) / deviation, target[training])
            said.append(fitted.decision_function((raw[test, :count] - mean) / deviation))
        parts.append((np.concatenate(symbols)[test], target[test], said[0], said[1], np.concatenate(times)[test]))
    symbol, positive, with_fuel, without, time = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(symbol, kind="stable")
    return _compared(symbol[order], positive[order], with_fuel[order], without[order], time[order])


def _compared(
    symbol: Integers, positive: Booleans, with_fuel: Floats, without: Floats, time: Integers
) -> dict[str, Any]:
    """ROC-AUC and PR-AUC over the base rate within symbols, without, and the gain with its 90 % interval over days."""
    days = time // 86_400 - int(time.min()) // 86_400
    count = int(days.max()) + 1
    draws = metrics.day_draws(count)
    blocks = {
        name: metrics.day_blocks(symbol, positive, said, days, count)
        for name, said in (("with", with_fuel), ("without", without))
    }
    result: dict[str, Any] = {"rows": int(positive.size), "positive": int(positive.sum())}
    for name, figure in (("roc_auc", metrics.DayBlocks.roc_auc), ("precision_lift", metrics.DayBlocks.precision_lift)):
        gain = metrics.bootstrap(blocks["with"], blocks["without"], figure, draws)
        result[name] = {
            "without": metrics.bootstrap(blocks["without"], None, figure, draws).value,
            "gain": gain.value,
            "low": gain.low,
            "high": gain.high,
        }
    return result


def _cluster_distance(share: Floats) -> Floats:
    """(hours,) distance of the nearest bin of CLUSTER_FACTOR times the mean within REACH; REACH where there is none."""
    near = share[:, : round(REACH / BIN_WIDTH)]
    with np.errstate(invalid="ignore"):
        dense = near > CLUSTER_FACTOR * near.mean(axis=1, keepdims=True)
    return np.where(dense.any(axis=1), np.argmax(dense, axis=1) * BIN_WIDTH, REACH)
