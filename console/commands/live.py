"""``wardround live``: what a campaign costs and how exact it is, its proposal, a simulation of it, and its series."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer
from rich.console import Console
from safetensors.numpy import load, save

from wardround.conf.indicators import CampaignFile, campaign_plan, read_campaign
from wardround.console.cli_live import Form
from wardround.console.new_files import write_new
from wardround.console.reports.series import render
from wardround.console.series_table import (
    alarm_lines,
    as_csv,
    as_json,
    as_prometheus,
    errors,
    promises,
    series,
    task_of,
)
from wardround.privacy.planner import CurveCost, site_costs
from wardround.privacy.shares import consortium_costs, shares_for
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.server.study import Progress
from wardround.strategies.cusum import Raised, alarms
from wardround.strategies.series import Figure, expected, of, read


def propose_command(file: Path, coordinator: Path | None) -> None:
    """Say what the campaign costs each hospital and how exact it will be; hand it to a coordinator."""
    given = read_campaign(file)
    plan = campaign_plan(given, datetime.now(UTC).date())
    task = task_of(plan)
    if task.ended(datetime.now(UTC)):
        raise UsageError(
            f"the campaign's first tick is over already: it begins at {task.start:%Y-%m-%d %H:%M} UTC",
            "events are counted in the tick in which they arrive: let it begin after the officers have approved it",
        )
    _say_first(plan, _before(plan, given))
    if task.rehearsal_seconds is not None:
        typer.echo(f"A REHEARSAL: a tick takes {task.rehearsal_seconds:g} s. Hospitals allow it in policy.yaml only.")
    if coordinator is not None:
        from wardround.console.commands.study import hand_over

        hand_over(coordinator, plan)


def simulate_command(file: Path, output: Path | None, form: Form) -> None:
    """Say what the campaign costs and how exact it will be, run it over made-up events, and show its series."""
    given = read_campaign(file)
    plan = campaign_plan(given, datetime.now(UTC).date())
    said = _before(plan, given)
    if form == "table":
        _say_first(plan, said)
    elif form == "csv":
        for line in said:
            typer.echo(line, err=True)
    if output is not None and output.exists():
        raise UsageError(f"'{output}' exists already", "choose a new name; nothing is written over")
    model = _run(plan, given)
    figures = read(plan, model, task_of(plan).ticks)
    if output is not None:
        output.mkdir(parents=True)
        write_new(output / "plan.json", plan.canonical)
        write_new(output / "model.safetensors", save(plan.layout.split(model)))
        write_new(output / "series.html", render(plan, figures, _alarms(plan, figures)).encode())
    _show(plan, figures, form)


def table_command(folder: Path, page: Path | None, form: Form) -> None:
    """The series of a campaign from ``plan.json`` with ``model.safetensors``, or a running one's ``progress.bin``."""
    try:
        plan = StudyPlan.parse((folder / "plan.json").read_bytes())
        table, ticks = _table_in(folder, plan)
    except OSError:
        raise UsageError(
            f"'{folder}' lacks plan.json or model.safetensors", "wardround live simulate --output writes both"
        ) from None
    if plan.task.name != "indicators":
        raise UsageError("this study publishes no indicators", "give the folder of a campaign of indicators")
    figures = read(plan, table, ticks)
    if page is not None:
        write_new(page, render(plan, figures, _alarms(plan, figures)).encode())
    if form == "table":
        _say_first(plan, promises(plan))
    _show(plan, figures, form)


def _table_in(folder: Path, plan: StudyPlan) -> tuple[Vector, int | None]:
    """The table of sums, and how many ticks are over where it is of a running campaign. Raises OSError without one."""
    running, finished = folder / "progress.bin", folder / "model.safetensors"
    if running.exists() and not finished.exists():
        progress = Progress.from_bytes(running.read_bytes(), plan)
        return progress.state.model, progress.rounds_done
    return plan.layout.join(load(finished.read_bytes())), None


def _run(plan: StudyPlan, given: CampaignFile) -> Vector:
    from wardround.simulations.indicators import Campaign
    from wardround.simulations.made_up_events import MadeUpFeed, made_up

    task, about = task_of(plan), given.made_up
    for away in about.away:
        if away.site not in given.hospitals:
            raise UsageError(f"made_up.away names '{away.site}', which takes no part", "name one of the hospitals")
    now = task.begins(1)
    feeds = {
        site.site: MadeUpFeed(made_up(task, about, site.site, place, site.declared_patients), lambda: now)
        for place, site in enumerate(plan.participants)
    }
    campaign = Campaign(
        plan,
        feeds,
        reachable=lambda tick, site: not any(a.site == site and a.first <= tick <= a.last for a in about.away),
        epsilon_cap=given.epsilon_cap,
        consortium_cap=given.consortium_cap,
    )
    for tick in range(1, task.ticks + 1):
        now = task.begins(tick + 1) - timedelta(microseconds=1)
        campaign.tick()
    return campaign.study.progress.state.model


def _before(plan: StudyPlan, given: CampaignFile) -> list[str]:
    said = promises(plan)
    if plan.privacy.mode is PrivacyMode.NONE:
        return said
    said += [_fit(cost, "a fresh domain") for cost in site_costs(plan, given.epsilon_cap)]
    if plan.privacy.mode is PrivacyMode.DIST:
        said += [_fit(cost, "a fresh domain 'consortium'") for cost in consortium_costs(plan, given.consortium_cap)]
        said.append(_gain(plan, given))
    return said


def _fit(cost: CurveCost, domain: str) -> str:
    fits = "" if cost.fits else "; it does not fit"
    return (
        f"{cost.site}: {cost.share:.1%} of the lifetime budget of {domain} (cap ε {cost.epsilon_cap:g} at δ "
        f"{cost.domain_delta:g}); {cost.more_studies} more such campaigns would fit{fits}."
    )


def _gain(plan: StudyPlan, given: CampaignFile) -> str:
    """How much narrower intervals are than with each hospital's full noise, and what else sets the share."""
    limit, noise, shares = plan.privacy.epsilon_consortium, plan.privacy.noise_multiplier, plan.honest_sites
    assert limit is not None and noise is not None
    (found,) = shares_for(plan, [limit], given.epsilon_cap, given.consortium_cap)
    alone = found.asked["epsilon_consortium"]
    why = "" if alone == noise else f" ε {plan.privacy.epsilon:g} against everyone asks for more noise than it does."
    return (
        f"Intervals are {(found.whole or noise) / noise:.2f} times narrower than in mode local with ε {limit:g} "
        f"against everyone; {shares**0.5:.2f} would be the most with {len(plan.participants)} hospitals.{why}"
    )


def _say_first(plan: StudyPlan, said: list[str]) -> None:
    console = Console()
    console.print(f"[bold]{plan.title}[/bold] · {len(plan.participants)} hospitals · plan {plan.digest[:12]}")
    for line in said:
        typer.echo(line)
    console.print(errors(plan, expected(plan)))


def _alarms(plan: StudyPlan, figures: list[Figure]) -> list[Raised]:
    task = task_of(plan)
    return [each for indicator in task.indicators for each in alarms(of(figures, indicator), task.alarm)]


def _show(plan: StudyPlan, figures: list[Figure], form: Form) -> None:
    raised = _alarms(plan, figures)
    if form == "json":
        typer.echo(as_json(plan, figures, expected(plan), raised))
    elif form == "csv":
        typer.echo(as_csv(plan, figures), nl=False)
    elif form == "prometheus":
        typer.echo(as_prometheus(plan, figures, raised), nl=False)
    else:
        Console().print(series(plan, figures))
        for line in alarm_lines(task_of(plan), raised):
            typer.echo(line)
