"""What the kinds of a ledger's entries are called, on papers and on pages."""

from collections.abc import Callable


def kind_words(kind: str, _: Callable[[str], str]) -> str:
    """A kind of ledger entry in the language that ``_`` speaks."""
    names = {
        "open_ledger": _("ledger begun"),
        "officers": _("officers named"),
        "open_domain": _("budget opened"),
        "waive": _("waiver"),
        "grant": _("approval"),
        "reserve": _("round charged"),
        "start": _("round started"),
        "cancel": _("charge given back"),
        "release": _("answer left"),
        "sign_survivors": _("list of a sum signed"),
        "open_sum": _("sum opened"),
        "abandon": _("round ended without an answer"),
        "refuse": _("refusal"),
        "close": _("budget closed"),
        "countersign": _("countersignature"),
        "recover": _("recovery"),
        "set_clock": _("clock set"),
        "suspend": _("officer's key suspended"),
        "inquiry": _("a patient's question answered"),
    }
    return names.get(kind, kind)
