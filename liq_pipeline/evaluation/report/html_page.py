"""The evaluation as a page that a risk desk reads: one HTML file, pictures inside, nothing loaded from anywhere.

Belongs here: words, tables and pictures made from the report's object. Does not: any figure of its own.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

OURS: Final = "#1f5fa8"
OTHERS: Final = "#9aa5b1"
STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b2733;max-width:1060px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #d5dbe1}
table{border-collapse:collapse;width:100%;margin:.8rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #e6eaee}
th:first-child,td:first-child{text-align:left}
thead th{background:#f3f5f7}.ours td:first-child{font-weight:600;color:#1f5fa8}.note{color:#586573;font-size:.92em}
.cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}
.card{border:1px solid #d5dbe1;border-radius:8px;padding:.7rem 1rem;flex:1 1 190px}
.card b{display:block;font-size:1.5rem}img{max-width:100%}ul{padding-left:1.2rem}
.which{font-weight:600;margin:1rem 0 -.4rem}.wide{overflow-x:auto}
@media(max-width:640px){body{margin:1rem auto;padding:0 .7rem}h1{font-size:1.35rem}.card{flex-basis:42%}
.card b{font-size:1.15rem}th,td{padding:.25rem .4rem;font-size:.86rem;white-space:nowrap}
.wide td:first-child,.wide th:first-child{position:sticky;left:0;background:#fff;white-space:normal;min-width:7.5rem}}
.limits{background:#fff8e6;border-left:4px solid #d9a300;padding:.6rem 1rem}
"""


def write_html(report: Mapping[str, Any], path: Path) -> None:
    """Write the page for a report (run.py); unknown figures show as a dash."""
    path.write_text(render(report), encoding="utf-8")


def render(report: Mapping[str, Any]) -> str:
    """The page as text."""
    panel, model = report["panel"], report["model"]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'><title>Alarm quality</title>",
        f"<style>{STYLE}</style></head><body>",
        "<h1>How good are the alarms?</h1>",
        f"<p class='note'>{', '.join(map(_text, panel['symbols']))} every {panel['step_seconds'] // 60} min,"
        f" {_text(panel['from'])} to {_text(panel['to'])} ({panel['weeks']:.1f} weeks, {panel['rows']:,} rows)."
        f" Model {_text(model['model_id'])}; {_percent(model['share_of_rows_in_training_window'])} of the rows lie in"
        f" its training window. Label version {report['label_version']}. Intervals are 90 %, whole days resampled.</p>",
        _cards(report),
        _limits(report["limits"]),
        "<h2>A cascade under way: how many are told, how late, and how often for nothing?</h2>",
        _under_way(report["desk"].get("under_way", {})),
        "<h2>Who ranks the hours before a cascade best?</h2>",
        "<p>Within-symbol ROC-AUC at 4 h: 0.5 is a coin toss. The bar to beat is realised volatility, not 0.5.</p>",
        _image(lambda: _ranking(report)),
        _score_table(report, "4h"),
        "<h2>The probabilities at 1, 4 and 24 h</h2>",
        _probability_table(report),
        "<h2>Do the probabilities mean what they say?</h2>",
        _image(lambda: _reliability(report)),
        "<h2>What a desk would have lived through</h2>",
        f"<p>Pages through the alert machine, delivered {report['desk']['delivery_seconds']} s after their point. An"
        " event is paged if a page stood or had just ended 30 min before its onset; <i>fresh</i> counts only pages"
        " told within 4 h before it; <i>by chance</i> is what the same pages moved by whole days would have.</p>",
        _desk_table(report),
        _lead_table(report),
        "<h2>Severities</h2>",
        _severity_table(report),
        "<h2>What each part adds</h2>",
        _ablation_table(report),
        "<h2>Events</h2>",
        _event_table(report),
        "<h2>After installation</h2>",
        _installation_table(report),
        "<h2>Drift</h2>",
        _drift(report),
        f"<p class='note'>Split: {_text(report['split']['walk_forward'])}; embargo"
        f" {report['split']['embargo_hours']:g} h. Data {_text(report['data_hash'][:16])}, configuration"
        f" {_text(report['config_hash'])}, scores {_text(report['score_version'])}. Computed in"
        f" {report['seconds']} s at {_text(report['created_at'])}. Not financial advice.</p>",
        "".join(f"<p class='note'>{_text(note)}</p>" for note in panel["notes"]),
        "</body></html>",
    ]
    return "\n".join(parts)


def _text(value: Any) -> str:
    return html.escape(str(value))


def _number(value: Any, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: Any, digits: int = 0) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def _interval(value: Mapping[str, Any] | None, digits: int = 3) -> str:
    if not value or value.get("value") is None:
        return "-"
    return f"{value['value']:+.{digits}f} ({_number(value['low'], digits)} to {_number(value['high'], digits)})"


def _share(value: Mapping[str, Any]) -> str:
    if value["share"] is None:
        return "-"
    return f"{_percent(value['share'])} ({_percent(value['low'])} to {_percent(value['high'])})"


def _table(
    head: Iterable[str], rows: Iterable[tuple[Any, ...]], ours: Callable[[str], bool] = lambda name: False
) -> str:
    body = "".join(
        f"<tr{' class=ours' if ours(str(row[0])) else ''}>"
        + "".join(f"<td>{_text(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class=wide><table><thead><tr>{''.join(f'<th>{_text(h)}</th>' for h in head)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _is_ours(name: str) -> bool:
    return name.startswith(("cascade_probability", "liquidation_risk", "early_warning"))


def _limits(limits: list[str]) -> str:
    if not limits:
        return ""
    return (
        "<div class='limits'><b>Read with this in mind</b><ul>"
        + "".join(f"<li>{_text(t)}</li>" for t in limits)
        + "</ul></div>"
    )


def _cards(report: Mapping[str, Any]) -> str:
    """The headline: the shipped model on rows that it was not trained on, the walk-forward beside it.

    A model is never headlined with rows that it was trained on.
    """
    share = report["model"]["share_of_rows_in_training_window"] or 0
    name, desk = "cascade_probability_4h", report["desk"]
    readings: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = []
    if share == 0:
        readings.append(("shipped model", report["scores"][name]["4h"], desk["early_warning_as_shipped"]))
    elif "outside_training" in report:
        unseen = report["outside_training"][name]["4h"]
        readings.append(("shipped model, unseen rows", unseen, desk.get("early_warning_outside_training", {})))
    walked = report["scores"][f"{name}_walk_forward"]["4h"]
    readings.append(("walk-forward", walked, desk["early_warning_walk_forward"]))
    readings = [reading for reading in readings if reading[1].get("roc_auc_within") is not None]
    if not readings:
        return (
            "<p class='limits'>No headline: every figure of the shipped model here is in sample, and the data are too"
            " short or too calm for a walk-forward. The risk score and the baselines below learn nothing and stand.</p>"
        )
    return "".join(_reading(*reading) for reading in readings)


def _reading(which: str, four: Mapping[str, Any], page: Mapping[str, Any]) -> str:
    paged = page.get("paged_30_min_before_onset")
    cards = [
        ("ROC-AUC within symbols, 4 h", _number(four.get("roc_auc_within"))),
        ("gain over volatility", _interval(four.get("gain_over_volatility_roc_auc"))),
        ("PR-AUC over base rate", _number(four.get("pr_auc_over_base_rate_within"), 1) + " times"),
        ("Brier skill", _number(four.get("brier_skill_over_symbol_base_rate"), 4)),
        ("false pages a week", _number(page.get("false_per_week"), 2)),
        (
            "major or systemic paged ≥ 30 min before",
            "-" if paged is None else _percent(paged["major_or_systemic"]["by_market"]["share"]),
        ),
    ]
    return (
        f"<p class='which'>{_text(which)}</p><div class='cards'>"
        + "".join(f"<div class='card'><b>{_text(value)}</b>{_text(name)}</div>" for name, value in cards)
        + "</div>"
    )


_UNDER_WAY_RULES: Final = {
    "model": "model",
    "model_unseen": "model, rows after its training",
    "plain": "plain rule",
    "as_sent": "as sent",
    "model_as_shipped": "model, in sample",
}


def _under_way(figures: Mapping[str, Any]) -> str:
    """Misses first: what was not told stands beside what was, and what the price did both ways."""
    if "rules" not in figures:
        return f"<p class='note'>{_text(figures.get('note', 'not judged'))}</p>"
    rules = {name: figures["rules"][name] for name in _UNDER_WAY_RULES if name in figures["rules"]}
    rows, moves, readings = [], [], []
    for name, of in rules.items():
        word = _UNDER_WAY_RULES[name]
        if "detected" not in of:
            readings.append(f"{word}: {of['note']}.")
            continue
        if "reading" in of:
            readings.append(f"{word}: {of['reading']}.")
        big = of["detected"]["major_or_systemic"]
        missed = None if big["own"]["share"] is None else 1.0 - big["own"]["share"]
        rows.append(
            (
                word,
                _percent(missed),
                _share(big["own"]),
                _share(big["market"]),
                _percent(of["detected"]["all"]["own"]["share"]),
                _percent(of["detected"]["first_shock"]["own"]["share"]),
                _percent(of["move_left"]["over_detected"]["p50"]),
                _percent(of["move_left"]["over_all"]["p50"]),
                _number(of["delay_minutes"]["over_detected"]["p50"], 0),
                _number(of["false_per_week"], 2),
                _percent(of["precision"]),
            )
        )
        further, adverse, mean = (of[key]["1h"] for key in ("further_move", "adverse_move", "mean_return"))
        moves.append(
            (
                word,
                f"{_percent(further['p50'], 1)} / {_percent(further['p90'], 1)}",
                f"{_percent(adverse['p50'], 1)} / {_percent(adverse['p90'], 1)}",
                _percent(mean["value"], 2),
                f"{_percent(further['at_random_times']['p50'], 1)} / {_percent(further['at_random_times']['p90'], 1)}",
                _percent(mean["at_random_times"], 2),
            )
        )
    head = (
        "rule",
        "major or systemic missed",
        "told, own symbol and side",
        "told, by market",
        "all events, own",
        "first shocks, own",
        "move left, of those told",
        "move left, misses as 0",
        "minutes after onset",
        "false market pages a week",
        "precision",
    )
    after = ("rule", "1 h further, median / 1 in 10", "1 h against, likewise", "mean return", "at random times")
    return (
        "<p>It is a risk alarm and no promise of direction: <i>move left</i> is hindsight over events, and the price"
        " goes against a page nearly as far as with it.</p>"
        + _table(head, rows, _is_ours)
        + _table((*after, "mean at random times"), moves, _is_ours)
        + "".join(f"<p class='note'>{_text(reading)}</p>" for reading in readings)
    )


def _score_table(report: Mapping[str, Any], horizon: str) -> str:
    rows = [
        (
            name,
            f"{figures['rows']:,}",
            _percent(figures["base_rate"], 2),
            _number(figures.get("roc_auc_pooled")),
            _number(figures.get("roc_auc_within")),
            _interval(figures.get("gain_over_volatility_roc_auc")),
            _number(figures.get("pr_auc_over_base_rate_within"), 2),
        )
        for name, by_horizon in report["scores"].items()
        if (figures := by_horizon.get(horizon)) is not None
    ]
    head = ("score", "rows", "base rate", "ROC pooled", "ROC within", "gain over volatility", "PR / base")
    return _table(head, rows, _is_ours)


def _probability_table(report: Mapping[str, Any]) -> str:
    rows = []
    for name, by_horizon in report["scores"].items():
        if not name.startswith("cascade_probability"):
            continue
        figures = next(iter(by_horizon.values()))
        top = figures.get("highest_1_percent") or {}
        rows.append(
            (
                name,
                _percent(figures["base_rate"], 2),
                _percent(figures.get("mean_stated"), 2),
                _number(figures.get("roc_auc_within")),
                _number(figures.get("pr_auc_over_base_rate_within"), 2),
                _number(figures.get("brier_skill_over_symbol_base_rate"), 4),
                f"{_percent(top.get('stated'), 1)} / {_percent(top.get('observed'), 1)}",
            )
        )
    head = ("score", "base rate", "mean stated", "ROC within", "PR / base", "Brier skill", "highest 1 %: stated / seen")
    return _table(head, rows, _is_ours)


def _desk_table(report: Mapping[str, Any]) -> str:
    desk = report["desk"]
    unseen = desk.get("early_warning_outside_training")
    named = (
        {
            "early_warning as shipped": desk["early_warning_as_shipped"],
            **({"early_warning, unseen rows": unseen} if unseen else {}),
            "early_warning walk-forward": desk["early_warning_walk_forward"],
            "severity rule": desk["severity_rule"],
        }
        | {name.replace("_", " "): figures for name, figures in desk.items() if name.startswith("as_sent")}
        | {f"hindsight budget: {name}": figures for name, figures in desk["at_the_budget_in_hindsight"].items()}
    )
    rows = []
    for name, figures in named.items():
        if "market_pages" not in figures:
            rows.append((name, *("-",) * 8))
            continue
        paged = figures["paged_30_min_before_onset"]
        rows.append(
            (
                name,
                f"{figures['right']} / {figures['late']} / {figures['false']}",
                _number(figures["false_per_week"], 2),
                _share(paged["major_or_systemic"]["by_market"]),
                _share(paged["first_shock"]["by_market"]),
                _share(paged["all"]["by_market"]),
                _by_chance(figures),
                _percent(paged["all"]["by_market_fresh"]["share"]),
                _percent(figures["share_of_time_under_claim"]),
            )
        )
    head = (
        "rule",
        "right / late / false",
        "false a week",
        "major or systemic paged",
        "first shocks paged",
        "all paged",
        "by chance",
        "fresh",
        "time under claim",
    )
    return _table(head, rows, _is_ours)


def _by_chance(figures: Mapping[str, Any]) -> str:
    """What moved pages would have had, in the order of the columns before."""
    chance = figures.get("by_chance")
    if not chance:
        return "-"
    return " / ".join(_percent(chance[name]["share"]) for name in ("major_or_systemic", "first_shock", "all"))


def _lead_table(report: Mapping[str, Any]) -> str:
    figures = report["desk"]["early_warning_as_shipped"]
    leads = figures.get("lead_minutes_over_all_events")
    if not leads:
        return ""
    cells = [(name.replace("p", "percentile "), _number(value, 0)) for name, value in leads.items()]
    return "<p>Lead over <b>all</b> events, a miss counting as none (minutes, as shipped):</p>" + _table(
        [name for name, _ in cells], [tuple(value for _, value in cells)]
    )


def _severity_table(report: Mapping[str, Any]) -> str:
    rows = [
        (
            f"{level} ({variant.replace('_', ' ')})",
            figures["alarms"],
            _percent(figures["precision"], 1),
            _percent(figures["share_of_rows"], 1),
            _percent(figures["events_preceded_by_30_min"]),
        )
        for variant, levels in report["severities"].items()
        if isinstance(levels, Mapping)
        for level, figures in levels.items()
    ]
    note = report["severities"].get("note")
    extra = f"<p class='note'>{_text(note)}</p>" if note else ""
    head = ("severity", "alarms", "followed by a cascade within 4 h", "of all rows", "events preceded by 30 min")
    return _table(head, rows) + extra


def _ablation_table(report: Mapping[str, Any]) -> str:
    text = ""
    for title, key in (
        ("Liquidation risk, 4 h", "liquidation_risk_components"),
        ("Probability, 4 h", "probability_feature_groups"),
    ):
        rows = [
            (
                name,
                _number(row.get("roc_auc_within")),
                _number(row.get("pr_auc_over_base_rate_within"), 2),
                row.get("note", ""),
            )
            for name, row in report["ablations"][key].items()
        ]
        text += _table((title, "ROC within", "PR / base", ""), rows)
    venues = report["ablations"]["one_venue_out"]
    if "note" in venues:
        return text + f"<p class='note'>One venue out: {_text(venues['note'])}.</p>"
    rows = [
        (name, *(_number(row[of].get("roc_auc_within")) for of in ("liquidation_risk", "cascade_probability_4h")))
        for name, row in venues.items()
    ]
    return text + _table(("One venue out, 4 h", "risk: ROC within", "probability: ROC within"), rows)


def _installation_table(report: Mapping[str, Any]) -> str:
    rows = []
    for days, row in report["ablations"]["after_installation"].items():
        if "note" in row:
            rows.append((days.replace("_", " "), row["note"], "", "", ""))
            continue
        for name in ("liquidation_risk", "cascade_probability_4h"):
            figures = row[name]
            rows.append(
                (
                    f"{days.replace('_', ' ')}: {name}",
                    row["days_tried"],
                    _percent(figures["known_share"]),
                    _number(figures["young"].get("roc_auc_within")),
                    _number(figures["with_all_history"].get("roc_auc_within")),
                )
            )
    head = ("age of the installation", "days tried", "known", "ROC within", "the same rows with all history")
    return _table(head, rows)


def _drift(report: Mapping[str, Any]) -> str:
    rows = [(name.replace("_", " "), _percent(share, 2)) for name, share in report["drift"].items() if share]
    if not rows:
        return "<p>No input of the model lay outside its training range.</p>"
    return _table(("input", "rows outside the model's training range"), rows)


def _event_table(report: Mapping[str, Any]) -> str:
    rows = [
        (name, e["all"], e["market_episodes"], e["major"], e["systemic"], e["first_shock"], _busiest(e["by_symbol"]))
        for name, e in report["panel"]["events"].items()
    ]
    return _table(("horizon", "events", "market episodes", "major", "systemic", "first shocks", "most in"), rows)


def _busiest(by_symbol: Mapping[str, int]) -> str:
    best = sorted(by_symbol.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{symbol} {count}" for symbol, count in best)


def _image(draw: Callable[[], Any]) -> str:
    """A matplotlib figure as an inline SVG picture."""
    figure = draw()
    if figure is None:
        return "<p class='note'>Too few cascades for a picture.</p>"
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    return f"<img alt='' src='data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"


def _ranking(report: Mapping[str, Any]) -> Any:
    from matplotlib.figure import Figure  # drawing is the only part of the program that needs it

    named = [
        (name, by["4h"]) for name, by in report["scores"].items() if by.get("4h", {}).get("roc_auc_within") is not None
    ]
    if not named:
        return None
    named.sort(key=lambda item: item[1]["roc_auc_within"])
    figure = Figure(figsize=(9.5, 0.36 * len(named) + 0.8))
    axes = figure.subplots()
    for row, (name, figures) in enumerate(named):
        value, interval = figures["roc_auc_within"], figures["roc_auc_within_interval"]
        axes.barh(row, value - 0.5, left=0.5, color=OURS if _is_ours(name) else OTHERS, height=0.65)
        if interval["low"] is not None:
            axes.plot([interval["low"], interval["high"]], [row, row], color="#1b2733", lw=1.2)
        axes.text(0.5 if value < 0.5 else value + 0.002, row + 0.1, f" {value:.3f}", va="bottom", fontsize=7)
    axes.set_yticks(range(len(named)), [name.replace("_", " ") for name, _ in named], fontsize=8)
    axes.axvline(0.5, color="#1b2733", lw=0.8)
    axes.set_xlabel("ROC-AUC within symbols, cascade within 4 h; line: 90 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _reliability(report: Mapping[str, Any]) -> Any:
    from matplotlib.figure import Figure

    found = [
        (hours, name, report["scores"][name][f"{hours}h"]["reliability"])
        for hours in (1, 4, 24)
        for name in (f"cascade_probability_{hours}h", f"cascade_probability_{hours}h_walk_forward")
        if report["scores"][name][f"{hours}h"].get("reliability")
    ]
    if not found:
        return None
    figure = Figure(figsize=(9.5, 3.2))
    axes = figure.subplots(1, 3)
    for panel, hours in zip(axes, (1, 4, 24), strict=True):
        top = 1e-6
        for at, name, bins in found:
            if at != hours:
                continue
            stated, observed = [b["stated"] for b in bins], [b["observed"] for b in bins]
            top = max(top, *stated, *observed)
            forward = name.endswith("walk_forward")
            panel.plot(
                stated,
                observed,
                "o-",
                ms=3.5,
                lw=1,
                color=OTHERS if forward else OURS,
                label="walk-forward" if forward else "shipped",
            )
        panel.plot([0, top], [0, top], color="#1b2733", lw=0.7, ls=":")
        panel.set_title(f"within {hours} h", fontsize=9)
        panel.set_xlabel("stated", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("observed", fontsize=8)
    if axes[0].get_legend_handles_labels()[1]:
        axes[0].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    return figure
