"""The report page: complete, honest, self-contained, escaped, accessible, and no wider than a phone."""

import base64
import hashlib
import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from wardround.console.reports.findings import answer
from wardround.console.reports.html import render_report
from wardround.console.reports.numbers import decimal
from wardround.privacy.accounting import rounded_up
from wardround.protocol.plan import StudyPlan
from wardround.simulations.result import EstimateResult, ModelResult, SimulationResult

Sample = tuple[SimulationResult, StudyPlan]
SAMPLES = ("protected", "unprotected", "survival", "calm")
VOID_TAGS = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Elements in order, text by section, and whether tags nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.open: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append((tag, dict(attrs).get("id") or "" if tag == "section" else ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if any(tag == "style" for tag, _ in self.open):
            return
        section = next((name for tag, name in self.open if tag == "section"), "")
        self.text[section] = f"{self.text.get(section, '')}{data} "

    @property
    def all_text(self) -> str:
        return " ".join(" ".join(self.text.values()).split())


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> Sample:
    found: Sample = request.getfixturevalue(request.param)
    return found


def estimates(model: ModelResult) -> Iterator[float]:
    for found in model.metrics.values():
        yield from (v for v in (found.value, found.low, found.high) if v is not None)


def test_every_number_of_the_result_is_on_the_page(sample: Sample) -> None:
    result, plan = sample
    text = Page(render_report(result, plan)).all_text
    wanted = {result.plan_digest, result.final_model, result.attribution, *result.data_hashes.values()}
    wanted |= set(result.split_hashes.values()) | {f"{result.seconds:.1f}", str(result.environment.seed)}
    for site in result.sites:
        wanted |= {site.site, f"{site.train_patients:,} train, {site.test_patients:,} test"}
        wanted |= {f"{count} {reason}" for reason, count in site.left_out.items()}
        wanted |= {decimal(v) for model in (site.own, site.shared) for v in estimates(model)}
        wanted |= {decimal(v) for v in estimates(ModelResult(metrics=site.gain))}
        wanted |= {decimal(v) for m in (site.own, site.shared) for p, o, _ in m.curves.calibration for v in (p, o)}
        if site.epsilon_site is not None:
            wanted.add(rounded_up(site.epsilon_site))
    for record in result.rounds:
        wanted |= {decimal(v) for v in record.metrics.values() if v is not None}
        for part in record.sites.values():
            wanted |= {decimal(v) for v in part.metrics.values() if v is not None}
            wanted |= {rounded_up(part.epsilon_site)} if part.epsilon_site is not None else set()
    assert {number for number in wanted if number not in text} == set()


def test_sections_come_in_their_order_and_the_page_is_small(sample: Sample) -> None:
    page = render_report(*sample)
    curves = [] if sample[0].task.startswith("survival") else ["calibration"]
    sections = [a["id"] for tag, a in Page(page).elements if tag == "section"]
    assert sections == [
        "privacy", "hospitals", "training", "roc", *curves, "epsilon", "rounds", "plan", "left", "made",
    ]  # fmt: skip
    assert len(page.encode()) < 400_000


def test_nothing_is_fetched_and_the_policy_allows_the_style_alone(sample: Sample) -> None:
    page = render_report(*sample)
    parsed = Page(page)
    assert not {tag for tag, _ in parsed.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
    }
    for _, attributes in parsed.elements:
        assert not {"src", "style", "srcset", "action", "background"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert "@import" not in page and "url(" not in page
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [a["content"] for t, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_the_answer_claims_no_difference_that_the_intervals_do_not_show(calm: Sample, protected: Sample) -> None:
    assert answer(calm[0]) == (
        "By accuracy and AUROC there was no clear difference between the shared model and the own model "
        "at any of 3 hospitals."
    )
    text = Page(render_report(*calm)).all_text
    assert "shared better" not in text and "shared worse" not in text
    assert answer(protected[0]) == (
        "By accuracy the shared model was better than the own model at 2 of 3 hospitals and worse at 1; "
        "by AUROC it was better at 2 of 3 and worse at 1."
    )


def test_a_mixed_answer_counts_what_is_unclear(protected: Sample) -> None:
    result = protected[0]
    first = result.sites[0]
    unclear = {**first.gain, "auroc": EstimateResult(value=0.1, low=0.0, high=0.2)}
    changed = result.model_copy(update={"sites": (first.model_copy(update={"gain": unclear}), *result.sites[1:])})
    assert answer(changed).endswith("by AUROC it was better at 1 of 3 and worse at 1, with no clear difference at 1.")


def test_without_any_own_model_the_page_says_so(protected: Sample) -> None:
    result, plan = protected
    sites = tuple(s.model_copy(update={"own": ModelResult(), "gain": {}}) for s in result.sites)
    text = Page(render_report(result.model_copy(update={"sites": sites}), plan)).all_text
    assert "No hospital's own model could be compared with the shared model in this run." in text


def test_an_excluded_hospital_is_a_named_row_with_its_reason(sample: Sample) -> None:
    text = " ".join(Page(render_report(*sample)).text["hospitals"].split())
    assert re.search(
        r"ewell 1 train, 0 test 12 records left out: 12 age missing .*?excluded took no part: one training", text
    )


def test_what_cannot_be_estimated_says_so_and_why(sample: Sample) -> None:
    page = Page(render_report(*sample))
    assert "not estimable" in page.text["hospitals"]
    assert "no comparison: own model: its training patients have one class only" in page.text["hospitals"]
    assert "cork has no own model to compare with" in page.all_text


def test_an_epsilon_never_stands_without_its_terms(protected: Sample, survival: Sample) -> None:
    for result, plan in (protected, survival):
        page = Page(render_report(result, plan))
        spending = [name for name, text in page.text.items() if "ε" in text]
        assert spending == ["privacy", "hospitals", "epsilon", "plan"]
        for name in spending:
            text = " ".join(page.text[name].split())
            for term in (
                "0.0001",
                "any one patient",
                "add or remove one patient",
                "against everyone",
                "whoever colludes",
            ):
                assert term in text, (name, term)
        numbers = re.compile(rf"(?<![\d.]){re.escape(rounded_up(result.sites[0].epsilon_site or 0))}(?!\d)")
        allowed = {"privacy", "hospitals", "epsilon"}
        assert {name for name, text in page.text.items() if numbers.search(text)} <= allowed


def test_without_protection_no_number_is_given(unprotected: Sample) -> None:
    page = Page(render_report(*unprotected))
    for section in ("privacy", "hospitals", "epsilon"):
        assert "no protection: simulation only" in page.text[section]
    assert "δ" not in page.all_text
    assert not re.search(r"ε\s*=?\s*\d", page.all_text)


def test_a_survival_study_leaves_out_roc_and_calibration_with_a_sentence(survival: Sample) -> None:
    page = Page(render_report(*survival))
    assert "calibration" not in page.text
    assert "A survival study has no ROC curve and no calibration here" in page.text["roc"]


def test_void_rounds_and_dropouts_are_named_with_reasons(protected: Sample) -> None:
    text = " ".join(Page(render_report(*protected)).text["rounds"].split())
    assert "hospitals answered, and 3 must answer" in text
    assert "7 aarau lost: no answer before the deadline" in text
    assert "7 bergen refused: its policy or budget did not allow it" in text
    assert "11 delft answered too late" in text
    assert "13 of 15" in text


def test_what_left_a_hospital_counts_a_late_vector_that_was_not_used(protected: Sample) -> None:
    text = " ".join(Page(render_report(*protected)).text["left"].split())
    assert "One vector a round of 6 numbers" in text
    assert "aarau 14 14 at most 200" in text
    assert "cork 15 14 at most 200" in text
    assert "delft 15 13 at most 200" in text
    assert "ewell 0 0 none" in text


def test_hostile_names_stay_text(protected: Sample) -> None:
    result, plan = protected
    hostile = "</style><script>alert(1)</script>\"'&"
    site = result.sites[0].model_copy(
        update={"site": hostile, "left_out": {hostile: 3}, "own": ModelResult(reason=hostile), "gain": {}}
    )
    rounds = tuple(
        r.model_copy(
            update={"sites": {hostile: r.sites["aarau"].model_copy(update={"detail": hostile})} | dict(r.sites)}
        )
        for r in result.rounds
    )
    changed = result.model_copy(
        update={
            "sites": (site, *result.sites[1:]), "rounds": rounds, "title": hostile, "notes": (hostile,),
            "attribution": hostile, "headline_metrics": (*result.headline_metrics, hostile),
            "data_hashes": {hostile: hostile},
        }
    )  # fmt: skip
    governance = plan.governance.model_copy(update={"purpose": hostile * 2, "permitted_use": hostile})
    page = render_report(changed, plan.model_copy(update={"title": hostile, "governance": governance}))
    parsed = Page(page)
    assert "<script" not in page.lower() and page.count("</style>") == 1
    assert hostile in parsed.all_text
    assert not any(name.startswith("on") or name == "style" for _, a in parsed.elements for name in a)


def test_the_page_says_that_one_person_played_every_hospital(sample: Sample) -> None:
    page = Page(render_report(*sample))
    assert "One person played every hospital" in page.all_text
    assert "In a federation each hospital sees only its own row" in page.all_text
    assert "No energy meter was read" in page.all_text


def test_tables_and_pictures_can_be_read_without_seeing_them(sample: Sample) -> None:
    page = render_report(*sample)
    parsed = Page(page)
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("caption") == tags.count("table")
    assert all(a.get("scope") in ("col", "row") for tag, a in parsed.elements if tag == "th")
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in parsed.elements:
        if tag == "svg" and attributes.get("aria-hidden") != "true":
            assert attributes["role"] == "img"
            assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)
    assert all(inside.strip() for inside in re.findall(r"<(?:title|desc) id[^>]*>(.*?)</", page))


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_keep_wcag_aa_contrast_in_light_dark_and_print(protected: Sample) -> None:
    page = render_report(*protected)
    themes = [
        dict(re.findall(r"--(\S+?): (#\w{6}|#fff|#000);", block))
        for block in re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    ]
    assert len(themes) == 3
    for theme in themes[:2]:
        for back in ("page", "raised", "alert-back"):
            for front in ("ink", "muted", "shared", "own", "alert", "good"):
                light, dark = sorted((_luminance(theme[back]), _luminance(theme[front])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (front, back)


def test_a_large_federation_stays_a_small_page(protected: Sample) -> None:
    result, plan = protected
    base = result.sites[0]
    names = [f"site-{n:03d}" for n in range(60)]
    rounds = tuple(
        r.model_copy(update={"round_number": n, "sites": dict.fromkeys(names, r.sites["aarau"])})
        for n in range(1, 401)
        for r in [result.rounds[n % 15]]
    )
    big = result.model_copy(
        update={"sites": tuple(base.model_copy(update={"site": n}) for n in names), "rounds": rounds}
    )
    page = render_report(big, plan.model_copy(update={"rounds": 400}))
    text = Page(page).all_text
    assert all(name in text for name in names)
    assert "The first 24 of 60 hospitals are drawn" in text
    assert len(page.encode()) < 2_000_000


PROBE = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe src="page.html" style="border:0;width:{width}px;height:800px"></iframe><script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  page.querySelectorAll("details").forEach(d => d.open = true);
  const wide = [...page.querySelectorAll("main *, footer *")].filter(
    e => !e.closest(".scroll, svg, thead") && e.getBoundingClientRect().right > page.documentElement.clientWidth + 0.5);
  const style = page.defaultView.getComputedStyle(page.body);
  document.body.dataset.found = [page.documentElement.scrollWidth, page.documentElement.clientWidth,
    wide.map(e => e.tagName + "." + e.className).slice(0, 5).join(" ") || "none", style.marginTop].join("|");
}});
</script>"""


def _measure(folder: Path, page: str, width: int) -> list[str]:
    """Scroll width, client width, elements that stick out, and body margin, as a browser lays the page out."""
    browser = next(p for p in ("chromium", "chromium-browser", "google-chrome") if shutil.which(p))
    (folder / "page.html").write_text(page, encoding="utf-8")
    (folder / "probe.html").write_text(PROBE.format(width=width), encoding="utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900", "--virtual-time-budget=3000",
                "--dump-dom", f"http://127.0.0.1:{server.server_address[1]}/probe.html",
            ],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        server.shutdown()
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, f"the browser measured nothing: {done.stdout[-300:]} {done.stderr[-300:]}"
    return found[1].split("|")


@pytest.mark.server("chromium")
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_in_a_browser_nothing_is_wider_than_the_screen(sample: Sample, width: int, tmp_path: Path) -> None:
    scroll, client, wide, margin = _measure(tmp_path, render_report(*sample), width)
    assert margin == "0px", "the style sheet was not applied: does its hash match the policy?"
    assert (int(scroll), wide) == (int(client), "none")


@pytest.mark.server("chromium")
def test_the_browser_test_sees_a_page_that_is_too_wide_and_one_without_its_style(
    protected: Sample, tmp_path: Path
) -> None:
    page = render_report(*protected)
    wide = page.replace("<footer>", f"<footer><pre>{'x' * 400}</pre>")
    scroll, client, _, _ = _measure(tmp_path, wide, 360)
    assert int(scroll) > int(client)
    assert _measure(tmp_path, page.replace("<style>", "<style> "), 360)[3] != "0px"
