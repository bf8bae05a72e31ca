"""`liq model`: the probability models: shipped, champion, candidates in shadow.

Belongs here: arguments and printing. Does not: training (evaluation/models/retrain.py, evaluation/archive/), the table
(pipeline/models.py).
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from liq_pipeline.commands.shared import JsonOption, endpoints_in_force, instant, out, settings_in_force
from liq_pipeline.errors import LiqError

app = typer.Typer(help="The probability models: shipped, champion, candidates in shadow.", no_args_is_help=True)


def _connect() -> Any:
    from liq_pipeline.store.connection import connect

    return connect(endpoints_in_force(settings_in_force()).database_url, application_name="liq model")


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """Every model, the one in force first, with what its shadow has shown."""
    from liq_pipeline.commands.shared import json_default
    from liq_pipeline.pipeline import models

    with _connect() as connection:
        found = models.list_models(connection)
    if as_json:
        import json
        from dataclasses import asdict

        for model in found:
            sys.stdout.write(json.dumps(asdict(model), default=json_default) + "\n")
        return
    table = Table("model", "state", "trained on", "shadow", "alarms in shadow", header_style="bold")
    for model in found:
        state = f"{model.state}, in force" if model.is_in_force else model.state
        shadow = f"{model.shadow_days:.1f} days" if model.shadow_days else ""
        table.add_row(
            model.model_id, state, _span(model.trained_from, model.trained_to), shadow,
            str(model.shadow_alarms) if shadow else "",
        )  # fmt: skip
    out.print(table)


@app.command()
def promote(
    model_id: Annotated[str, typer.Argument(help="A candidate, or any model of the list.")],
    because: Annotated[str, typer.Option(help="Why; kept in model_changes.")] = "promoted by hand",
) -> None:
    """Let a model speak from the next tick on; `liq model rollback` takes it back."""
    from liq_pipeline.pipeline import models

    with _connect() as connection:
        before = models.promote(connection, model_id, because)
    out.print(f"{model_id} speaks from the next tick on, in the place of {before}.", highlight=False)


@app.command()
def rollback(because: Annotated[str, typer.Option(help="Why.")] = "rolled back by hand") -> None:
    """Take the newest promotion back; again: one further."""
    from liq_pipeline.pipeline import models

    with _connect() as connection:
        taken_back, speaks = models.rollback(connection, because)
    out.print(f"{taken_back} is taken back, {speaks} speaks again from the next tick on.", highlight=False)


@app.command()
def train(
    from_: Annotated[str | None, typer.Option("--from", help="First time that is learnt from, UTC.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Last time, UTC.")] = None,
    world: Annotated[str, typer.Option(help="The world whose history is learnt from.")] = "real",
    archive: Annotated[
        bool, typer.Option("--archive", help="Learn from years of the public archives instead.")
    ] = False,
    symbols: Annotated[str | None, typer.Option(help="With --archive: coins, e.g. BTC,ETH; else LIQ_SYMBOLS.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="With --archive: processes.")] = 2,
    try_inputs: Annotated[
        str | None,
        typer.Option(
            help="With --archive: what these inputs would have brought: accounts, top_traders, taker, premium, depth or"
            " all. Premium and depth are fetched besides. The candidate stays the same."
        ),
    ] = None,
) -> None:
    """Fit a candidate on this installation's history, walk-forward; it stays in shadow until it is promoted."""
    if archive:
        _train_on_archive(from_, to, symbols, workers, try_inputs)
        return
    if try_inputs is not None:
        raise LiqError("--try-inputs needs --archive: an installation's own history keeps no premium and no depth")
    from liq_pipeline.evaluation.models.retrain import retrain
    from liq_pipeline.evaluation.panels.stored import stored_history
    from liq_pipeline.pipeline import models
    from liq_pipeline.store import worlds

    settings = settings_in_force()
    with _connect() as connection:
        known = worlds.get(connection, world)
        if known is None:
            raise LiqError(f"there is no world {world} in the store")
        first = None if from_ is None else instant(from_, "--from")
        last = datetime.now(UTC) if to is None else instant(to, "--to")
        history = stored_history(connection, known, settings, first, last)
        model = retrain(history, settings, models.model_in_force(connection))
        models.add_candidate(connection, model, f"trained on {world} by hand")
    _tell(model)


def _train_on_archive(
    from_: str | None, to: str | None, symbols: str | None, workers: int, try_inputs: str | None
) -> None:
    from pathlib import Path

    from liq_pipeline.domain.symbols import coin_of
    from liq_pipeline.evaluation.archive.inputs import groups_named
    from liq_pipeline.evaluation.archive.plan import Plan, training_folder
    from liq_pipeline.evaluation.archive.run import Manner
    from liq_pipeline.evaluation.archive.run import train as train_archive
    from liq_pipeline.pipeline import models
    from liq_pipeline.scoring.probability import shipped_model
    from liq_pipeline.sources.archives.binance import FIRST_DAY

    settings = settings_in_force()
    trial = () if try_inputs is None else groups_named(try_inputs)
    coins = settings.symbols if symbols is None else tuple(coin_of(name) for name in symbols.split(",") if name.strip())
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = FIRST_DAY if from_ is None else instant(from_, "--from")
    last = today if to is None else min(instant(to, "--to"), today)
    plan = Plan(tuple(dict.fromkeys(coins)), max(first, FIRST_DAY), last, training_folder(Path(settings.home)))
    try:
        with _connect() as connection:
            in_force, has_store = models.model_in_force(connection), True
    except LiqError:
        in_force, has_store = shipped_model(), False
    done = train_archive(
        plan, settings, in_force, Manner(workers), say=lambda text: out.print(text, highlight=False), trial=trial
    )
    for problem in done.problems[:5]:
        out.print(f"in the archive's files: {problem}", highlight=False)
    if has_store:
        with _connect() as connection:
            if all(known.model_id != done.model.model_id for known in models.list_models(connection)):
                models.add_candidate(connection, done.model, f"trained on archives of {', '.join(plan.symbols)}")
        _tell(done.model)
    else:
        out.print(
            f"{done.model.model_id} is in {done.candidate_file}. No store answers: start `liq up`, then the same"
            " command again puts it in shadow, from what is kept.",
            highlight=False,
        )
    if trial:
        tried = done.report["inputs"]
        out.print(
            f"Inputs worth a release, of {tried['settings_tried']} groups tried: "
            f"{', '.join(tried['worth_a_release']) or 'none'}. The rule: {tried['rule']}.",
            highlight=False,
        )
    out.print(f"Its report: {done.report_file}", highlight=False)


def _tell(model: Any) -> None:
    figures = model.facts["walk_forward"]["4"]
    out.print(
        f"{model.model_id} is a candidate in shadow. Walk-forward at 4 h: ROC-AUC within symbols"
        f" {figures['roc_auc_within']} ({model.facts['compared_with']}: {figures['in_force_roc_auc_within']}).",
        highlight=False,
    )


@app.command()
def gate(model_id: Annotated[str, typer.Argument(help="A candidate.")]) -> None:
    """Hold a candidate against the model in force, by the written gate; exit code 1 if it does not pass."""
    from liq_pipeline.evaluation.models.promotion_gate import judge_candidate
    from liq_pipeline.pipeline import models
    from liq_pipeline.store import worlds

    with _connect() as connection:
        known = worlds.active(connection)
        if known is None:
            raise LiqError("no world is active: start `liq up` first")
        in_force = models.model_in_force(connection).model_id
        if all(model.model_id != model_id for model in models.list_models(connection)):
            raise LiqError(f"there is no model {model_id}: `liq model list` shows those there are")
        verdict = judge_candidate(connection, known, settings_in_force(), model_id, in_force)
    for name, gain in (("Brier score", verdict.brier_gain), ("PR-AUC over base rate", verdict.ranking_gain)):
        if gain is not None:
            out.print(f"{name}, gain over {in_force}: {gain.value:+.5f} ({gain.low:.5f} to {gain.high:.5f})")
    out.print(f"{'passes' if verdict.passes else 'does not pass'}: {verdict.because}", highlight=False)
    if not verdict.passes:
        raise typer.Exit(1)


def _span(first: datetime | None, last: datetime | None) -> str:
    return "" if first is None or last is None else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
