"""What an entry of a ledger says, in a few words, on papers and on pages; never an epsilon, which needs conditions.

Texts that others wrote are cleaned here; whoever shows the words escapes them for its own format.
"""

from collections.abc import Mapping
from typing import Any

from wardround.client.store.keys import fingerprint
from wardround.console.paper.terms import Words, clean


def entry_words(fact: Mapping[str, Any], plan: str, words: Words, round_number: int | None = None) -> str:
    """An entry's fact (as in its JSON) in words, with who signed it.

    Args:
        plan: what its plan is called; "" where it has none.
        round_number: of its block, for kinds that name the block alone; None: it is left out.
    """
    _ = words._
    by = clean(", ".join(one["officer"] for one in fact.get("approvals", ())))
    said = _fact_words(fact, plan, words, round_number)
    return _("{said}; signed by {officers}").format(said=said, officers=by) if by else said


def _fact_words(fact: Mapping[str, Any], plan: str, words: Words, round_number: int | None) -> str:
    _ = words._
    match fact["kind"]:
        case "open_ledger":
            return _("ledger of '{site}'").format(site=clean(fact["site"]))
        case "officers":
            return clean(", ".join(sorted(fact["officers"])))
        case "open_domain":
            return _("budget for life, at order {order}").format(order=fact["order"])
        case "waive":
            return _("{plan}: no privacy guarantee, sums only; reason: {reason}").format(
                plan=plan, reason=clean(fact["reason"])
            )
        case "grant" if fact["blocks"]:
            rounds = words.ngettext("{count} round", "{count} rounds", fact["blocks"])
            return _("{plan}: {rounds} approved").format(plan=plan, rounds=rounds)
        case "grant":
            return _("{plan}: approval revoked").format(plan=plan)
        case "reserve" | "sign_survivors" | "open_sum":
            return _("{plan}, round {number}").format(plan=plan, number=fact["round_number"])
        case "start" if round_number and fact["opted_out_at_most"]:
            return _("{plan}, round {number}; without at most {count} patients who had opted out").format(
                plan=plan, number=round_number, count=words.number(fact["opted_out_at_most"])
            )
        case "start" | "cancel" | "release" | "abandon" if round_number:
            return _("{plan}, round {number}").format(plan=plan, number=round_number)
        case "inquiry":
            return _("asked by {officer}").format(officer=clean(fact["officer"]))
        case "refuse":
            return _("{plan}, round {number}: {reason}").format(
                plan=plan, number=fact["round_number"], reason=clean(fact["reason"])
            )
        case "close":
            return clean(fact["reason"])
        case "countersign":
            return _("{witness} signed the first {size} entries").format(
                witness=clean(fact["signer"]), size=words.number(fact["size"])
            )
        case "recover":
            blocks = words.ngettext(
                "{count} round charged", "{count} rounds charged", sum(one["blocks"] for one in fact["charges"])
            )
            return _("others had seen {size} entries; {blocks} for what may have run; reason: {reason}").format(
                size=words.number(fact["seen_size"]), blocks=blocks, reason=clean(fact["reason"])
            )
        case "suspend":
            reasons = {"lost": _("reported lost"), "stolen": _("reported stolen")}
            return _("key {fingerprint}, {reason}").format(
                fingerprint=fingerprint(bytes.fromhex(fact["key"])), reason=reasons[fact["reason"]]
            )
        case "set_clock":
            return _("instead of {wrong}; reason: {reason}").format(
                wrong=clean(fact["wrong"]), reason=clean(fact["reason"])
            )
    return plan
