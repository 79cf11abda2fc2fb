"""``wardround officer sign``: read a request in words and sign it, on a machine that the site's people do not run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from wardround.client.signing import SigningRequest, missing, read_request, sign, signers
from wardround.client.store.keys import fingerprint, read_officer_key
from wardround.console.commands.ledger import passphrase
from wardround.console.new_files import write_new
from wardround.console.plan_words import charge_noun, in_words, plain
from wardround.privacy.meaning import conditions
from wardround.protocol.errors import UsageError
from wardround.protocol.ledger import OpenDomain, Waive
from wardround.protocol.plan import StudyPlan


def sign_command(request: Path, keys: Sequence[Path], out: Path | None, yes: bool) -> None:
    """Show the plan in words, with the digest that is computed here; ask; sign; print what goes on from here.

    That is what the site records, or, where another officer must sign too, the request with this signature in it.
    """
    try:
        text = request.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"'{request}' cannot be read", "give the file that 'site study request' wrote") from None
    if not keys:
        raise UsageError("nobody signs", "give --officer-key with your key file")
    asked, plan = read_request(text)
    for line in (*(in_words(plan) if plan is not None else ()), *_asked(asked, plan)):
        typer.echo(line, err=True)
    if not yes and not typer.confirm("Sign this?", err=True):
        typer.echo("Not signed.", err=True)
        raise typer.Exit(1)
    officers = [read_officer_key(key, passphrase(f"Passphrase of {key.name}")) for key in keys]
    signed = sign(asked, plan, officers)
    if out is None:
        typer.echo(signed, nl=False)
        return
    write_new(out, signed.encode())
    if missing(asked.facts) > len(officers):
        typer.echo(f"{out}: half signed. Another officer signs it: wardround officer sign {out.name}", err=True)
    else:
        typer.echo(f"{out}: bring it back, and record it: wardround site study record FOLDER {out.name}", err=True)


def _asked(request: SigningRequest, plan: StudyPlan | None) -> Iterator[str]:
    yield f"You are asked to sign, for site '{request.site}':"
    for fact in request.facts:
        if isinstance(fact, OpenDomain):
            assert fact.epsilon_cap is not None
            yield plain(
                f"  that the data domain '{fact.domain}' is opened: epsilon at most {fact.epsilon_cap:g} "
                f"{conditions(fact.delta)}, over all studies for ever"
            )
        elif isinstance(fact, Waive):
            yield plain(f"  a waiver on '{fact.domain}': the plan has NO DIFFERENTIAL PRIVACY. Reason: {fact.reason}")
        elif fact.blocks == 0:
            yield plain(f"  that the plan may do nothing more on '{fact.domain}' (version {fact.version})")
        else:
            assert plan is not None
            many = f"{fact.blocks} {charge_noun(plan, fact.blocks)}"
            yield plain(
                f"  that the plan may charge {many} on '{fact.domain}' (version {fact.version}); it has {plan.charges}"
            )
    for name, key in signers(request.facts, request.ledger).items():
        yield f"Officer '{name}' has signed this already, with the key {fingerprint(bytes.fromhex(key))}."
    yield f"Ledger: {fingerprint(bytes.fromhex(request.ledger))}. Compare it with the site's, which you have on paper."
