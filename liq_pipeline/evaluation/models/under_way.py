"""Fitting the under-way model: two small regressions, judged out of fold by weeks, thresholds set for a budget.

Belongs here: labels of the moment, fits, folds, thresholds, the facts of the model file. Does not: inference
(scoring/under_way/rules.py), figures (evaluation/paging/under_way.py).

`python -m liq_pipeline.evaluation.models.under_way DATA [OUT]` fits the shipped file from the folder of development
data.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.labels.version_1 import CascadeEvent, label_panel
from liq_pipeline.evaluation.paging.under_way import (
    WEEK_SECONDS,
    UnderWayPage,
    is_right,
    market_pages,
    pages_of,
    under_way_figures,
)
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.bars import BarArrays, points_on_bars
from liq_pipeline.scoring.under_way.decide import Decided, decide
from liq_pipeline.scoring.under_way.excursions import (
    DIRECTIONS,
    DOWN,
    LONGEST_STEP_SECONDS,
    UP,
    Excursions,
    excursions,
    market,
)
from liq_pipeline.scoring.under_way.rules import (
    MARKET_FEATURES,
    OWN_FEATURES,
    SHIPPED_FILE,
    Logistic,
    UnderWayModel,
    by_model,
    calm,
    market_features,
    own_features,
    shipped_under_way_model,
)

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]

HORIZON_HOURS: Final = 4
EMBARGO_SECONDS: Final = 48 * 3600
MARKET_RUN: Final = 0.4
OWN_RUN: Final = 0.25
"""Rows that a fit learns from: where the price has run this part of theta. Calm rows teach nothing about the moment."""
BEFORE_SECONDS: Final = 30 * 60
PENALTY: Final = 0.05
OWN_THRESHOLD: Final = 0.05
FALSE_PAGES_PER_WEEK: Final = 1.0
SET_FOR: Final = 0.9
"""The share of the budget that thresholds are set for: set for all of it, the weeks that had no say had 1.13."""
HOLD_SECONDS: Final = 15 * 60
THRESHOLDS: Final = tuple(round(0.95 - 0.01 * k, 2) for k in range(56))
LEAST_EVENTS: Final = 20
SETTINGS_TRIED: Final = 330
"""Settings read on this data while the model was chosen: rules, learners, feature sets, penalties, thresholds,
holds."""


@dataclass(frozen=True)
class Material:
    """What fits and judgements stand on. Arrays of labels: direction -> booleans, (times,) and (symbols, times)."""

    panel: Panel
    found: Excursions
    events: Sequence[CascadeEvent]
    market_label: dict[int, Booleans]
    own_label: dict[int, Booleans]


def material(panel: Panel) -> Material:
    """Excursions and labels of a panel."""
    bars = bars_of(panel)
    _, events = label_panel(
        panel.time, panel.symbols, panel["price_usd"], panel["open_interest_base"], panel.step_seconds
    )
    chosen = events[HORIZON_HOURS]
    market_label = {d: np.zeros(panel.time.size, dtype=bool) for d in DIRECTIONS}
    own_label = {d: np.zeros((len(panel.symbols), panel.time.size), dtype=bool) for d in DIRECTIONS}
    for event in chosen:
        around = (panel.time >= event.start - BEFORE_SECONDS) & (panel.time <= event.peak + BEFORE_SECONDS)
        market_label[event.direction] |= around
        inside = (panel.time >= event.start) & (panel.time <= event.peak)
        own_label[event.direction][panel.symbols.index(event.symbol)] |= inside
    return Material(panel, excursions(bars, points_on_bars(bars)), chosen, market_label, own_label)


def fit(of: Material, rows: Booleans, model_id: str = "candidate") -> UnderWayModel:
    """A model of the rows (times,) given, thresholds of the shipped kind left for set_threshold."""
    features, labels = [], []
    for d in DIRECTIONS:
        group = market_features(market(of.found.sides[d]))
        # Every symbol of the group reads the same numbers: the first one's are taken.
        columns = np.stack([group[name][0] for name in MARKET_FEATURES], axis=-1)
        chosen = rows & (columns[:, MARKET_FEATURES.index("largest_run")] > MARKET_RUN) & np.isfinite(columns).all(-1)
        features.append(columns[chosen])
        labels.append(of.market_label[d][chosen])
    whole = _logistic(np.concatenate(features), np.concatenate(labels), MARKET_FEATURES)
    features, labels = [], []
    for d in DIRECTIONS:
        side = of.found.sides[d]
        odds = whole.log_odds(market_features(market(side)))
        own = own_features(side, of.found, odds)
        columns = np.stack([own[name] for name in OWN_FEATURES], axis=-1)
        chosen = rows[np.newaxis, :] & (side.run > OWN_RUN) & np.isfinite(columns).all(-1)
        features.append(columns[chosen])
        labels.append(of.own_label[d][chosen])
    own_model = _logistic(np.concatenate(features), np.concatenate(labels), OWN_FEATURES)
    return UnderWayModel(model_id, whole, own_model, 1.0, OWN_THRESHOLD)


def _logistic(features: Floats, labels: Booleans, names: tuple[str, ...]) -> Logistic:
    """A penalised regression on standardised features, written in the features' own units."""
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    fitted = LogisticRegression(C=PENALTY, max_iter=500).fit((features - mean) / deviation, labels)
    coefficients = fitted.coef_[0] / deviation
    intercept = float(fitted.intercept_[0] - (coefficients * mean).sum())
    return Logistic(
        round(intercept, 6), {name: round(float(c), 6) for name, c in zip(names, coefficients, strict=True)}
    )


@dataclass(frozen=True)
class OutOfFold:
    """probability, market_probability: direction -> (symbols, times), each week by a model of the others. thresholds:
    (times,), each week's set on the other weeks."""

    probability: dict[int, Floats]
    market_probability: dict[int, Floats]
    thresholds: Floats
    weeks: int


def weeks_of(time: Integers) -> Iterator[tuple[Booleans, Booleans]]:
    """(rows of a week, rows to learn from: all others but an embargo on both sides)."""
    week = (time - time[0]) // WEEK_SECONDS
    for number in np.unique(week):
        inside = week == number
        first, last = int(time[inside][0]), int(time[inside][-1])
        yield inside, (time < first - EMBARGO_SECONDS) | (time > last + EMBARGO_SECONDS)


def out_of_fold(of: Material, budget: float = FALSE_PAGES_PER_WEEK) -> OutOfFold:
    """Probabilities that no row helped to make, and a threshold for each week that this week did not set."""
    shape = of.found.price_known.shape
    own = {d: np.full(shape, np.nan) for d in DIRECTIONS}
    whole = {d: np.full(shape, np.nan) for d in DIRECTIONS}
    folds = list(weeks_of(of.panel.time))
    for inside, others in folds:
        if not any((of.market_label[d] & others).any() for d in DIRECTIONS):
            continue
        read = by_model(of.found, fit(of, others))
        for d in DIRECTIONS:
            own[d][:, inside] = read.probability[d][:, inside]
            whole[d][:, inside] = read.market_probability[d][:, inside]
    pages = {g: model_pages(of, own, whole, np.full(of.panel.time.size, g)) for g in THRESHOLDS}
    false = {g: _false_by_week(of, pages[g], folds) for g in THRESHOLDS}
    thresholds = np.full(of.panel.time.size, 1.0)
    for number, (inside, _) in enumerate(folds):
        kept = np.arange(len(folds)) != number
        thresholds[inside] = _lowest_within(false, kept, SET_FOR * budget)
    return OutOfFold(own, whole, thresholds, len(folds))


def set_threshold(of: Material, model: UnderWayModel, found: OutOfFold, budget: float) -> UnderWayModel:
    """The model with the lowest market threshold whose out-of-fold pages keep the budget over all weeks."""
    folds = list(weeks_of(of.panel.time))
    false = {
        g: _false_by_week(
            of, model_pages(of, found.probability, found.market_probability, np.full(of.panel.time.size, g)), folds
        )
        for g in THRESHOLDS
    }
    threshold = _lowest_within(false, np.ones(len(folds), dtype=bool), SET_FOR * budget)
    return replace(model, market_threshold=threshold)


def _lowest_within(false: dict[float, Integers], kept: Booleans, budget: float) -> float:
    chosen = THRESHOLDS[0]
    for threshold in THRESHOLDS:
        if false[threshold][kept].mean() > budget:
            break
        chosen = threshold
    return chosen


def _false_by_week(of: Material, pages: Sequence[UnderWayPage], folds: Sequence[Any]) -> Integers:
    counts = np.zeros(len(folds), dtype=np.int64)
    start = int(of.panel.time[0])
    for group in market_pages(pages):
        if not any(is_right(page, of.events) for page in group):
            counts[(group[0].opened - start) // WEEK_SECONDS] += 1
    return counts


def model_pages(
    of: Material, own: dict[int, Floats], whole: dict[int, Floats], thresholds: Floats
) -> list[UnderWayPage]:
    """Pages of given probabilities; thresholds: (times,)."""
    with np.errstate(invalid="ignore"):
        holds = {d: (whole[d] > thresholds) & (own[d] > OWN_THRESHOLD) for d in DIRECTIONS}
    return pages_where(of, holds)


def pages_where(of: Material, holds: dict[int, Booleans]) -> list[UnderWayPage]:
    """Pages of a rule that holds at these rows."""
    furthest = {d: np.nan_to_num(of.found.sides[d].cascade) for d in DIRECTIONS}
    direction = np.where(furthest[DOWN] >= furthest[UP], DOWN, UP)
    direction = np.where(holds[DOWN] & ~holds[UP], DOWN, np.where(holds[UP] & ~holds[DOWN], UP, direction))
    is_open = holds[DOWN] | holds[UP]
    return pages_of(of.panel.time, of.panel.symbols, is_open, direction, calm(of.found)[0] & ~is_open, HOLD_SECONDS)


def reliability(of: Material, probability: dict[int, Floats]) -> dict[str, Any]:
    """Brier skill over the base rate and stated against observed, over the rows that a fit would learn from."""
    stated, happened = [], []
    for d in DIRECTIONS:
        chosen = (of.found.sides[d].run > OWN_RUN) & np.isfinite(probability[d])
        stated.append(probability[d][chosen])
        happened.append(of.own_label[d][chosen])
    p, y = np.concatenate(stated), np.concatenate(happened).astype(np.float64)
    if not p.size:
        return {"rows": 0}
    base = float(y.mean())
    bins = []
    for low, high in pairwise((0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)):
        inside = (p >= low) & (p < high) if high < 1.0 else p >= low
        if inside.any():
            stated_mean, observed = float(p[inside].mean()), float(y[inside].mean())
            bins.append({"rows": int(inside.sum()), "stated": stated_mean, "observed": observed})
    variance = base * (1.0 - base)
    skill = None if variance == 0.0 else 1.0 - float(((p - y) ** 2).mean()) / variance
    return {"rows": int(p.size), "base_rate": base, "brier_skill_over_base_rate": skill, "bins": bins}


def figures_of(of: Material, pages: Sequence[UnderWayPage], first: int, last: int) -> dict[str, Any]:
    """The under-way figures of pages on the material's panel."""
    return under_way_figures(pages, of.events, of.panel.time, of.panel.symbols, of.panel["price_usd"], first, last)


def under_way_report(
    panel: Panel,
    bars: BarArrays,
    span: Booleans,
    events: Sequence[CascadeEvent],
    sent: Sequence[UnderWayPage] = (),
) -> dict[str, Any]:
    """`desk.under_way` of a report: both rules on the same rows; the model never by rows that it was fitted on.

    bars: what scores stand on (all venues); panel: what labels stand on. sent: pages that people really had.
    """
    first, last = int(panel.time[span][0]), int(panel.time[span][-1])
    points = points_on_bars(bars)

    def figures(pages: Sequence[UnderWayPage], since: int = first, until: int = last) -> dict[str, Any]:
        happened = [event for event in events if since <= event.onset <= until]
        return under_way_figures(pages, happened, panel.time, panel.symbols, panel["price_usd"], since, until)

    def pages(decided: Decided) -> list[UnderWayPage]:
        return pages_of(panel.time, panel.symbols, decided.is_open, decided.direction, decided.is_calm, HOLD_SECONDS)

    if panel.step_seconds > LONGEST_STEP_SECONDS:
        return {"note": f"a step of {panel.step_seconds // 60} min cannot show the first minutes of a cascade"}
    rules: dict[str, Any] = {"plain": figures(pages(decide(bars, points, None)))}
    shipped = shipped_under_way_model()
    if shipped is not None:
        trained_to = _moment(shipped.facts["trained_to"]) + 86_400 + EMBARGO_SECONDS
        trained_from = _moment(shipped.facts["trained_from"]) - EMBARGO_SECONDS
        reading = pages(decide(bars, points, shipped))
        if last < trained_from or first > trained_to:
            rules["model"] = figures(reading) | {"reading": f"{shipped.model_id}, rows that it never saw"}
        else:
            of = material(panel)
            if len(of.events) >= LEAST_EVENTS:
                found = out_of_fold(of)
                walked = model_pages(of, found.probability, found.market_probability, found.thresholds)
                rules["model"] = figures(walked) | {
                    "reading": f"out of fold: {found.weeks} weeks, each by a model and a threshold of the others",
                    "reliability": reliability(of, found.probability),
                }
            else:
                rules["model"] = {"note": f"fewer than {LEAST_EVENTS} events to learn from out of fold"}
            rules["model_as_shipped"] = figures(reading) | {"reading": f"{shipped.model_id}, in sample: never quote it"}
            unseen = max(first, trained_to)
            if last - unseen >= WEEK_SECONDS:
                rules["model_unseen"] = figures(reading, unseen) | {
                    "reading": f"{shipped.model_id}, the rows after its training"
                }
    if sent:
        rules["as_sent"] = figures(sent) | {"reading": "pages that people were told"}
    return {"hold_minutes": HOLD_SECONDS / 60, "market_page_minutes": BEFORE_SECONDS / 60, "rules": rules}


def _moment(day: Any) -> int:
    return int(datetime.fromisoformat(str(day)).replace(tzinfo=UTC).timestamp())


def ship(panel: Panel, model_id: str) -> UnderWayModel:
    """The model file's object: fitted on the whole panel, its threshold set out of fold."""
    of = material(panel)
    found = out_of_fold(of)
    model = set_threshold(of, fit(of, np.ones(panel.time.size, dtype=bool), model_id), found, FALSE_PAGES_PER_WEEK)
    first, last = int(panel.time[0]), int(panel.time[-1])
    pages = model_pages(of, found.probability, found.market_probability, found.thresholds)
    plain = figures_of(of, _plain_pages(panel), first, last)
    judged = figures_of(of, pages, first, last)
    hour = judged["further_move"]["1h"], judged["adverse_move"]["1h"]
    facts = {
        "trained_from": _day(first),
        "trained_to": _day(last),
        "symbols": list(panel.symbols),
        "label_version": 1,
        "settings_tried": SETTINGS_TRIED,
        "false_market_pages_a_week_allowed": FALSE_PAGES_PER_WEEK,
        "out_of_fold": _short(judged),
        "plain_rule_on_the_same_rows": _short(plain),
        # What messages quote beside an alarm (docs/alerts.md): both ways, and at ordinary times.
        "what_followed": {
            "n": judged["pages"],
            "further_median": hour[0]["p50"],
            "further_p90": hour[0]["p90"],
            "adverse_median": hour[1]["p50"],
            "adverse_p90": hour[1]["p90"],
            "random_further_median": hour[0]["at_random_times"]["p50"],
            "random_further_p90": hour[0]["at_random_times"]["p90"],
            "source": f"out of fold, {_day(first)} to {_day(last)}, {len(panel.symbols)} coins",
        },
    }
    return replace(model, facts=facts)


def _plain_pages(panel: Panel) -> list[UnderWayPage]:
    bars = bars_of(panel)
    plain = decide(bars, points_on_bars(bars), None)
    return pages_of(panel.time, panel.symbols, plain.is_open, plain.direction, plain.is_calm, HOLD_SECONDS)


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    detected = figures["detected"]
    return {
        "events": figures["events"],
        "market_pages": figures["market_pages"],
        "false_per_week": round(figures["false_per_week"], 3),
        "detected_own_major_or_systemic": detected["major_or_systemic"]["own"],
        "detected_market_major_or_systemic": detected["major_or_systemic"]["market"],
        "detected_own_all": detected["all"]["own"],
        "move_left_median": figures["move_left"]["over_detected"]["p50"],
        "delay_minutes_median": figures["delay_minutes"]["over_detected"]["p50"],
    }


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%d}"


def main() -> None:
    """Write the shipped file again."""
    from liq_pipeline.evaluation.panels.development import five_minute_panel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder of development data")
    default = Path(__file__).resolve().parents[2] / "scoring" / "models" / SHIPPED_FILE
    parser.add_argument("out", type=Path, nargs="?", default=default)
    arguments = parser.parse_args()
    panel = five_minute_panel(arguments.data)
    model = ship(panel, f"under-way-{_day(int(panel.time[-1]))}")
    arguments.out.write_text(json.dumps(model.as_json(), indent=1) + "\n")
    print(json.dumps(model.facts, indent=1))


if __name__ == "__main__":
    main()
