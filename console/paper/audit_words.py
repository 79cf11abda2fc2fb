"""The audit report of a period, in words."""

import json
from collections.abc import Iterator

from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.console.paper import study_words
from wardround.console.paper.anchor_words import checkpoint, footer
from wardround.console.paper.blocks import Block, Box, Cell, Column, Fact, Facts, Heading, Row, Sheet, Table, Text, Tone
from wardround.console.paper.entry_words import entry_words
from wardround.console.paper.excerpt import HIGHLIGHTED
from wardround.console.paper.model import Audit, Budget, Line, Paper, Run, Spending
from wardround.console.paper.proofs import in_order
from wardround.console.paper.terms import Words, clean, digest_short, percent_up, units_down


def audit_sheet(paper: Paper, audit: Audit, digest: str, signed: str, words: Words) -> Sheet:
    """``digest`` names the signed content; ``signed`` is the file name under which it is attached."""
    _, period = words._, audit.period
    kind = _("Audit report")
    return Sheet(
        eyebrow=f"Wardround · {kind} · {words.moment(paper.made_at)}",
        title=_("{site}, {since} to {until}").format(
            site=clean(paper.site), since=words.day(period.since), until=words.day(period.until)
        ),
        lead=_summary(audit, words),
        blocks=tuple(_blocks(paper, audit, words)),
        footer=footer(paper, kind, digest, words),
        language=paper.language,
        signed=signed,
    )


def _summary(audit: Audit, words: Words) -> str:
    _ = words._
    if not audit.period.first:
        return _("No entry was written in this period. Budgets stand as at its end.")
    entries = words.ngettext("{count} entry", "{count} entries", audit.period.last - audit.period.first + 1)
    rounds = words.ngettext("{count} round charged", "{count} rounds charged", audit.kinds.get("reserve", 0))
    refusals = words.ngettext("{count} refusal", "{count} refusals", audit.kinds.get("refuse", 0))
    return _("{entries} in the ledger of this period: {rounds}, {refusals}.").format(
        entries=entries, rounds=rounds, refusals=refusals
    )


def _blocks(paper: Paper, audit: Audit, words: Words) -> Iterator[Block]:
    _ = words._
    yield from _highlights(audit, words)
    yield Heading(_("Privacy budgets at the end of the period"))
    if not audit.budgets:
        yield Text(_("No budget had been opened by then."))
    for budget in audit.budgets:
        yield from budget_blocks(budget, words)
    yield from _refusals(audit, words)
    yield from _excerpt(audit, words)
    yield from checkpoint(paper, words)
    yield Heading(_("What made this paper"))
    yield Facts(tuple(study_words.software(paper, words)))
    yield from study_words.not_claimed(None, words)


def budget_blocks(budget: Budget, words: Words) -> Iterator[Block]:
    """A domain: its cap, what is spent, what the filter leaves, and which study spent it."""
    _ = words._
    left = max(0, budget.allowance - budget.used)
    closed = _(" (closed)") if budget.closed else ""
    against = (
        _(", as the coordinator and colluding hospitals see its patients") if budget.domain == CONSORTIUM_DOMAIN else ""
    )
    yield Heading(_("Data domain '{domain}'").format(domain=clean(budget.domain)) + against + closed, 3)
    yield Facts(
        (
            Fact(_("Lifetime cap"), words.sentence(budget.cap)),
            Fact(_("Spent by all studies"), words.sentence(budget.spent)),
            Fact(
                _("Filter"),
                _("{used} used; headroom {left} of {whole} (Rényi divergence of order {order})").format(
                    used=words.marked(percent_up(budget.used, budget.allowance)),
                    left=words.marked(units_down(left)),
                    whole=words.marked(units_down(budget.allowance)),
                    order=budget.order,
                ),
            ),
            Fact(_("Rounds charged"), words.number(budget.blocks)),
            *_waived(budget, words),
        )
    )
    if budget.spendings:
        yield Table(
            _("By study; each figure is of the study alone, from the ledger's beginning."),
            (
                Column(_("Study"), 4),
                Column(_("Rounds in the period"), 2, right=True),
                Column(_("Rounds in all"), 2, right=True),
                Column(_("Epsilon of the study"), 6),
            ),
            tuple(_spending(one, words) for one in budget.spendings),
        )


def _waived(budget: Budget, words: Words) -> Iterator[Fact]:
    _ = words._
    if budget.without_privacy:
        yield Fact(
            _("Not covered"),
            words.ngettext(
                "{count} round had no differential privacy, as two officers signed: no figure covers what it told",
                "{count} rounds had no differential privacy, as two officers signed: no figure covers what they told",
                budget.without_privacy,
            ),
        )


def _spending(one: Spending, words: Words) -> Row:
    rounds = sum(charge.blocks for charge in one.charges)
    name = clean(one.study) if one.study else digest_short(one.plan)
    cells = (
        Cell(name, digest_short(one.plan)),
        Cell(words.number(one.in_period)),
        Cell(words.number(rounds)),
        words.cell(one.epsilon),
    )
    return Row(cells, Tone.PLAIN if one.epsilon else Tone.ALERT)


def _highlights(audit: Audit, words: Words) -> Iterator[Block]:
    """Recoveries and waivers first: every auditor asks about them."""
    _ = words._
    counted = {kind: audit.kinds.get(kind, 0) for kind in sorted(HIGHLIGHTED)}
    if not any(counted.values()):
        yield Box(_("No waiver, no recovery"), (_("Nothing of that kind was written in this period."),))
        return
    texts = [
        _("Entry {number}, {when}: {says}").format(
            number=words.number(line.number), when=words.moment(line.at), says=_says(line, audit, words)
        )
        for line in audit.lines
        if line.kind in HIGHLIGHTED
    ]
    more = sum(counted.values()) - len(texts)
    if more:
        texts.append(
            words.ngettext("{count} more is counted in the excerpt.", "{count} more are counted in the excerpt.", more)
        )
    yield Box(
        _("Waivers and recoveries: {kinds}").format(kinds=words.kinds({k: n for k, n in counted.items() if n})),
        tuple(texts),
        Tone.ALERT,
    )


def _refusals(audit: Audit, words: Words) -> Iterator[Block]:
    _ = words._
    yield Heading(_("Refusals"))
    if not audit.refusals:
        yield Text(_("No request was refused in this period."))
        return
    rows = tuple(
        Row(
            (
                Cell(clean(one.study) if one.study else digest_short(one.plan)),
                Cell(clean(one.reason)),
                Cell(words.number(one.count)),
                Cell(words.moment(one.first_at), "" if one.count == 1 else f"\N{EN DASH} {words.moment(one.last_at)}"),
            )
        )
        for one in audit.refusals
    )
    note = ""
    if audit.more_refusals:
        note = words.ngettext(
            "{count} more refusal has another reason.", "{count} more refusals have other reasons.", audit.more_refusals
        )
    yield Table(
        note,
        (
            Column(_("Study"), 3),
            Column(_("Reason"), 7),
            Column(_("Times"), 2, right=True),
            Column(_("First and last"), 4, whole=True),
        ),
        rows,
    )


def _excerpt(audit: Audit, words: Words) -> Iterator[Block]:
    _ = words._
    yield Heading(_("Excerpt of the ledger"))
    if not audit.lines:
        yield Text(_("The period has no entry."))
        return
    rows = tuple(
        _run(one, words) if isinstance(one, Run) else _line(one, audit, words)
        for one in in_order(audit.lines, audit.runs)
    )
    yield Table(
        _(
            "Entries that are listed one by one are proved against the checkpoint. Ranges are counted: that is the "
            "site's word, under its signature, and a copy of the ledger shows whether it is right."
        ),
        (
            Column(_("Entry"), 22),
            Column(_("When"), 42, whole=True),
            Column(_("Kind"), 30),
            Column(_("Domain"), 23),
            Column(_("What it says"), 53),
        ),
        rows,
    )


def _run(run: Run, words: Words) -> Row:
    _ = words._
    numbers = words.numbers(run.first, run.last)
    until = "" if run.first == run.last else f"\N{EN DASH} {words.moment(run.last_at)}"
    when = Cell(words.moment(run.first_at), until)
    return Row((Cell(numbers), when, Cell(_("counted")), Cell(""), Cell(words.kinds(run.kinds))))


def _line(line: Line, audit: Audit, words: Words) -> Row:
    alert = line.kind in HIGHLIGHTED
    cells = (
        Cell(words.number(line.number)),
        Cell(words.moment(line.at)),
        Cell(words.kind(line.kind), strong=alert),
        Cell(clean(line.domain or "")),
        Cell(_says(line, audit, words)),
    )
    return Row(cells, Tone.ALERT if alert else Tone.PLAIN)


def _says(line: Line, audit: Audit, words: Words) -> str:
    """An entry in a few words, without an epsilon: these stand with their conditions above."""
    _ = words._
    plan = ""
    if line.plan:
        plan = clean(audit.studies.get(line.plan, "")) or digest_short(line.plan)
    if line.content is None:
        return plan or _("the content is withheld here")
    return entry_words(json.loads(line.content)["fact"], plan, words)
