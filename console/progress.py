"""The progress of a run: the round, the running metric, the epsilon spent. In a pipe, one line every five rounds."""

from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from wardround.console.reports.numbers import decimal, delta_short, metric_name
from wardround.privacy.accounting import rounded_up
from wardround.protocol.plan import StudyPlan
from wardround.simulations.result import RoundResult

QUIET_ROUNDS: Final = 5
"""Without a terminal, a line is printed after so many rounds."""

WIDE: Final = 105
"""Columns from which on there is room for the time that is left."""


class RunProgress:
    """Use as a context manager; call ``advance`` after every round. It never prints what one hospital's data say."""

    def __init__(self, plan: StudyPlan, console: Console | None = None) -> None:
        self._plan = plan
        self._console = console or Console()
        self._metric = ""
        self._bar: Progress | None = None
        if self._console.is_terminal:
            wide = self._console.width >= WIDE
            columns: list[ProgressColumn] = [
                BarColumn(bar_width=24 if wide else 6),
                TextColumn("{task.description}", markup=False),
            ]
            if wide:
                columns.append(TimeRemainingColumn(compact=True))
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(f"round 0/{plan.rounds}", total=plan.rounds)

    def __enter__(self) -> "RunProgress":
        if self._plan.privacy.delta is not None:
            self._console.print(
                "ε is for any one patient of a hospital (add or remove one patient), against everyone, "
                "whoever colludes; rounded up.",
                style="dim",
                highlight=False,
            )
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, round_result: RoundResult) -> None:
        """Show the state after ``round_result``."""
        words = self.describe(round_result)
        number = round_result.round_number
        if self._bar is not None:
            self._bar.update(self._task, completed=number, description=words)
        elif number % QUIET_ROUNDS == 0 or number == self._plan.rounds:
            self._console.print(words, highlight=False, markup=False, soft_wrap=True)

    def describe(self, round_result: RoundResult) -> str:
        """``round 7/15 · accuracy 0.812 · ε 1.90 of 3 (δ 1e-4, per patient)``."""
        void = " void" if round_result.state == "void" else ""
        first = next(((name, value) for name, value in round_result.metrics.items() if value is not None), None)
        if first is not None:
            self._metric = f"{metric_name(first[0]).inside} {decimal(first[1])}"
        parts = [
            f"round {round_result.round_number}/{self._plan.rounds}{void}",
            self._metric,
            self._spent(round_result),
        ]
        return " · ".join(part for part in parts if part)

    def _spent(self, round_result: RoundResult) -> str:
        """The most that any hospital has spent."""
        terms = self._plan.privacy
        if terms.delta is None or terms.epsilon is None:
            return "no protection"
        spent = max((s.epsilon_site for s in round_result.sites.values() if s.epsilon_site is not None), default=0.0)
        return f"ε {rounded_up(spent)} of {terms.epsilon:g} (δ {delta_short(terms.delta)}, per patient)"
