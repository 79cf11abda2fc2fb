"""*Accounts*: who may log in, for IT of a hospital and for a coordinator. Here an account can be disabled, and no more.

Making an account, enabling one and a new second factor stay on the command line, at the machine itself: whoever could
do that in a browser could make an officer's account for herself, or take one over whose password she has, with a
session that was stolen from IT.
"""

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from wardround.console.web.accounts import Account, Accounts, Locked
from wardround.console.web.attempts import attempt
from wardround.console.web.guards import Form, Viewer, console, field
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.pages.login import too_many, wait
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.protocol.errors import UsageError

router = APIRouter()

PATH: Final = "/accounts"
SITE_PAGE, HUB_PAGE = (
    Page(
        face=face,
        path=PATH,
        title=N_("Accounts"),
        group="run",
        roles=frozenset({role}),
        router=router,
        writers=frozenset({role}),
    )
    for face, role in ((Face.SITE, Role.IT), (Face.COORDINATOR, Role.COORDINATOR))
)


@dataclass(frozen=True, slots=True)
class Row:
    """An account; ``may_disable``: it is another's, and not disabled yet."""

    account: Account
    may_disable: bool


@router.get(PATH)
def accounts(request: Request, looks: Viewer) -> Response:
    """The list."""
    return _page(request, looks, done=_("The account is disabled.") if "done" in request.query_params else "")


@router.post(PATH)
def disable(request: Request, form: Form, looks: Viewer) -> Response:
    """Disable another's account, with a code of one's own."""
    name, code = field(form, "name", 200), field(form, "code", 40)
    held: Accounts = console(request).accounts
    if name == looks.account:
        return _page(request, looks, 409, _("This is your own account: somebody else has to disable it."))
    answer = attempt(request, looks.account, lambda browser: held.check_code(looks.account, code, browser))
    if isinstance(answer, Locked):
        return wait(_page(request, looks, 429, too_many()), answer)
    if answer is None:
        wrong = _("The code is wrong, or it was used before. Wait for the next one.")
        return _page(request, looks, 403, wrong)
    try:
        held.disable(name)
    except UsageError:
        return _page(request, looks, 409, _("There is no such account."))
    return RedirectResponse(f"{PATH}?done=1", 303)


def _page(request: Request, looks: Viewer, status: int = 200, fault: str = "", done: str = "") -> Response:
    held: Accounts = console(request).accounts
    rows = [Row(one, one.name != looks.account and not one.disabled) for one in held.all()]
    return render(
        request, "accounts.html.j2", status, title=_("Accounts"), rows=rows, fault=fault, done=done,
        command="site" if console(request).face is Face.SITE else "coordinator",
    )  # fmt: skip
