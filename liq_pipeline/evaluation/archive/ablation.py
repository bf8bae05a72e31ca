"""What a group of inputs on trial would have brought: walk-forward with and without it on the same rows, and a verdict.

Belongs here: the comparison and the rule. Does not: the inputs (inputs.py), the candidate (fit.py), which stays as it
is: its inputs are those of scoring, and a group that is worth it comes with a release.

The rule was written down before any figure was seen. Rows are those where all of a group's inputs are known, the same
for both sides, in fitting and in judging. A quarter is gained where ROC-AUC within symbols and Brier skill both rise. A
group is worth a release only where over all judged quarters together the first rises by LEAST_GAIN and the second
rises at all, and at least WON_SHARE of the judged quarters, LEAST_QUARTERS or more of them, are gained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.archive.fit import chosen_rows, figures, is_enough, predicted
from liq_pipeline.evaluation.archive.inputs import Group
from liq_pipeline.evaluation.archive.market import QuarterRows, load_quarter
from liq_pipeline.evaluation.archive.plan import Plan, Quarter
from liq_pipeline.evaluation.models.training import (
    EMBARGO_SECONDS,
    SAMPLE_SECONDS,
    TrainingRows,
    fit_logistic,
    joined,
)
from liq_pipeline.scoring.probability import FEATURES

LEAST_GAIN: Final = 0.002
"""Of ROC-AUC within symbols: less is what columns of noise reach by chance."""
WON_SHARE: Final = 2.0 / 3.0
LEAST_QUARTERS: Final = 2
"""One quarter is one regime: it judges nothing."""
RULE: Final = (
    "worth a release only where, on the rows on which the group is known, ROC-AUC within symbols rises by at least"
    f" {LEAST_GAIN:g} and Brier skill rises over all judged quarters together, and both rise in at least two thirds of"
    f" the judged quarters, of which there are {LEAST_QUARTERS} or more"
)

Floats = NDArray[np.float64]


def try_inputs(plan: Plan, groups: Sequence[Group], say: Callable[[str], None] = lambda _text: None) -> dict[str, Any]:
    """The report's part on inputs: per group the figures with and without it, and the verdict by the rule."""
    found: dict[str, Any] = {}
    for group in groups:
        found[group.name] = _tried(plan, group)
        say(f"{group.name}: {found[group.name]['verdict']}")
    return {
        "rule": RULE,
        "settings_tried": len(groups),
        "worth_a_release": [name for name, one in found.items() if one["is_worth_a_release"]],
        "groups": found,
    }


def rows_with(plan: Plan, group: Group, quarter: Quarter) -> QuarterRows | None:
    """A quarter's rows on which the whole group is known, with its columns; None where there is none."""
    import pyarrow.parquet as pq

    rows = load_quarter(plan, quarter)
    if rows is None:
        return None
    columns = {name: values for name, values in rows.columns.items() if _is_read(name)}
    own = {name: np.full(rows.is_known.shape, np.nan, dtype=np.float32) for name in group.features}
    for index, symbol in enumerate(plan.symbols):
        path = plan.input_file(group.name, symbol, quarter)
        if not path.is_file():
            continue
        table = pq.read_table(path)
        place = (table.column("time").to_numpy() - rows.time[0]) // SAMPLE_SECONDS
        for name, values in own.items():
            values[index, place] = table.column(name).to_numpy()
    is_known = rows.is_known & np.isfinite(np.stack(list(own.values()))).all(axis=0)
    return replace(rows, is_known=is_known, columns=columns | own) if is_known.any() else None


def _is_read(name: str) -> bool:
    """Labels, and inputs at 4 h: the other horizons' are not judged, and take memory."""
    return name.startswith(("label_", "near_")) or name in FEATURES or name.endswith("@4")


def _tried(plan: Plan, group: Group) -> dict[str, Any]:
    sides = {"without": list(FEATURES), "with": [*FEATURES, *group.features]}
    parts: list[TrainingRows] = []
    quarters: list[dict[str, Any]] = []
    labels: list[NDArray[np.int8]] = []
    said: dict[str, list[NDArray[np.float32]]] = {side: [] for side in sides}
    for quarter in plan.quarters:
        rows = rows_with(plan, group, quarter)
        if rows is None:
            continue
        past = [part.between(-np.inf, quarter.start.timestamp() - EMBARGO_SECONDS) for part in parts[-1:]]
        past = parts[:-1] + past
        if parts and is_enough(past, quarter):
            learnt = joined(past)
            own = rows.columns["label_4"]
            one: dict[str, Any] = {"quarter": quarter.name}
            for side, names in sides.items():
                probability = predicted(fit_logistic(learnt, 4, names, calibrate=False), rows)
                one[side] = figures(own, probability)
                said[side].append(probability.astype(np.float32))
            labels.append(own)
            quarters.append(one | {"is_gained": _is_gained(one)})
        parts.append(chosen_rows(rows))
    together = {
        side: figures(np.concatenate(labels, axis=1), np.concatenate(said[side], axis=1).astype(np.float64))
        for side in sides if labels
    }  # fmt: skip
    is_worth, verdict = judged(together, [one["is_gained"] for one in quarters])
    return {
        "inputs": list(group.features),
        "rows_fitted": int(sum(part.time.size for part in parts)),
        "together": together,
        "quarters": quarters,
        "quarters_judged": sum(one["is_gained"] is not None for one in quarters),
        "quarters_gained": sum(one["is_gained"] is True for one in quarters),
        "is_worth_a_release": is_worth,
        "verdict": verdict,
    }


def judged(together: Mapping[str, Any], gained: Sequence[bool | None]) -> tuple[bool | None, str]:
    """(worth a release, None where nothing can be said; why in a sentence). gained: by quarter, None where unknown."""
    known = [one for one in gained if one is not None]
    gains = _gains(together) if together else None
    if gains is None or len(known) < LEAST_QUARTERS:
        return None, (
            f"not judged: {len(known)} quarters with enough cascades where these inputs are known, {LEAST_QUARTERS} are"
            " needed"
        )
    won, need = sum(known), math.ceil(WON_SHARE * len(known) - 1e-9)
    is_worth = gains[0] >= LEAST_GAIN and gains[1] > 0.0 and won >= need
    was, now = together["without"], together["with"]
    return is_worth, (
        f"{'worth a release' if is_worth else 'not worth it'}: ROC-AUC within symbols {was['roc_auc_within']:.3f} to"
        f" {now['roc_auc_within']:.3f} ({gains[0]:+.4f}), PR-AUC over base {was['pr_auc_over_base_rate_within']:.1f} to"
        f" {now['pr_auc_over_base_rate_within']:.1f}, Brier skill {was['brier_skill']:+.4f} to"
        f" {now['brier_skill']:+.4f}; {won} of {len(known)} quarters gained, {need} needed"
    )


def _is_gained(sides: Mapping[str, Any]) -> bool | None:
    gains = _gains(sides)
    return None if gains is None else gains[0] > 0.0 and gains[1] > 0.0


def _gains(sides: Mapping[str, Any]) -> tuple[float, float] | None:
    """Of ROC-AUC within symbols and of Brier skill; None where one is not known."""
    names = ("roc_auc_within", "brier_skill")
    pairs = [(sides["with"].get(name), sides["without"].get(name)) for name in names]
    if any(after is None or before is None for after, before in pairs):
        return None
    return pairs[0][0] - pairs[0][1], pairs[1][0] - pairs[1][1]
