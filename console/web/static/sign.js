// Signs the facts of a request with an officer's key, in this browser, and puts them into the form that sends them.
// Nothing is signed that the page does not show: every fact must follow from the plan, whose digest is computed here,
// and say the same as the words on the screen. The bytes that are signed are made here from the fact.
import { bytes, canonical, fromHex, labelled, sha256, toHex } from "./canonical.js";
import { able, Fault, openKey } from "./officer_key.js";

const KEYS = {
  grant: ["blocks", "domain", "event", "kind", "plan", "version"],
  waive: ["domain", "kind", "plan", "reason"],
  open_domain: ["delta", "domain", "epsilon_cap", "kind", "order"],
};
const CONSORTIUM = "consortium";

// {site, ledger, digest, facts} as the page says them: the texts that a person reads, and nothing behind them.
export function shownOn(root) {
  const text = (place) => place.textContent.trim();
  const one = (name) => { const place = root.querySelector(`[data-shown="${name}"]`); return place ? text(place) : null; };
  const facts = [...root.querySelectorAll("[data-fact]")].map((card) => [
    card.dataset.fact,
    Object.fromEntries([...card.querySelectorAll("[data-part]")].map((place) => [place.dataset.part, text(place)])),
  ]);
  return { site: one("site"), ledger: one("ledger"), digest: one("digest"), facts };
}

// Throws Fault("differs") unless the request asks for what is shown, and for nothing that its plan does not say.
export async function check(request, shown) {
  const must = (true_) => { if (!true_) throw new Fault("differs"); };
  must(request.format === "wardround/signing-request/1" && request.site === shown.site);
  must(/^[0-9a-f]{64}$/.test(request.ledger));
  must((await sha256(fromHex(request.ledger))).slice(0, 32).match(/.{4}/g).join(" ") === shown.ledger);
  const plan = request.plan;
  const digest = plan === null ? null : await labelled("wardround/plan/1", bytes(canonical(plan)));
  must(digest === shown.digest);
  must(request.facts.length > 0 && request.facts.length === shown.facts.length);
  request.facts.forEach((whole, index) => {
    const { approvals, ...fact } = whole, [kind, parts] = shown.facts[index];
    must(Array.isArray(approvals) && fact.kind in KEYS && Object.keys(fact).sort().join() === KEYS[fact.kind].join());
    must(fact.domain === parts.domain);
    must(fact.kind === "open_domain" ? plan === null : plan !== null && fact.plan === digest);
    if (fact.kind === "grant") {
      must(kind === (fact.blocks === 0 ? "revoke" : "grant"));
      must(String(fact.blocks) === parts.blocks && String(fact.version) === parts.version);
      must(fact.blocks % charges(plan) === 0 && fact.blocks <= charges(plan) * plan.attempts && fact.blocks >= 0);
      must(sameEvent(fact.event, eventOf(plan, request.site, fact.domain)));
    } else if (fact.kind === "waive") {
      must(kind === "waive" && fact.reason === parts.reason && plan.privacy.mode === "none");
    } else {
      must(kind === "open_domain" && String(fact.order) === parts.order);
      must(fact.epsilon_cap === Number(parts.cap) && fact.delta === Number(parts.delta));
    }
  });
  return digest;
}

// The text of the signed facts. Throws Fault where something differs, or this officer has signed already.
export async function sign(request, shown, officer) {
  const plan = await check(request, shown);
  const facts = [];
  for (const { approvals, ...fact } of request.facts) {
    if (approvals.some((one) => one.officer === officer.officer || one.key === officer.key)) throw new Fault("twice");
    const content = bytes(`wardround/approval/1\0${canonical({ fact, ledger: request.ledger })}`);
    const signature = toHex(await officer.sign(content));
    facts.push({ ...fact, approvals: [...approvals, { officer: officer.officer, key: officer.key, signature }] });
  }
  const { site, ledger } = request;
  return JSON.stringify({ format: "wardround/signed-facts/1", site, ledger, plan, facts });
}

// protocol.plan.StudyPlan.charges: a campaign of indicators is charged once.
function charges(plan) {
  return plan.task.name === "indicators" ? 1 : plan.rounds;
}

// client.governance.charge_for: what one charge of the plan is on a data domain.
function eventOf(plan, site, domain) {
  const { privacy, local, participants } = plan, frame = { unit: "patient", adjacency: "add_or_remove_one" };
  const { noise_multiplier: sigma, sampling_probability } = privacy;
  if (sigma === null || sampling_probability === null || local.steps === null) {
    return { ...frame, kind: "unprotected", releases: plan.task.name === "indicators" ? plan.rounds : 1 };
  }
  const declared_patients = participants.find((one) => one.site === site)?.declared_patients;
  const shares = domain === CONSORTIUM && privacy.mode === "dist" ? honest(participants.length, plan.min_sites) : 1;
  const noise_multiplier = sigma * Math.sqrt(shares);
  if (plan.task.name === "indicators") {
    const contributions = Math.max(...plan.task.indicators.map((one) => one.contributions));
    const tree = { kind: "tree_gaussian", noise_multiplier, sampling_probability: 1.0, steps: 1, declared_patients };
    return { ...frame, ...tree, ticks: plan.task.ticks, contributions };
  }
  return { ...frame, kind: "poisson_gaussian", noise_multiplier, sampling_probability, steps: local.steps, declared_patients };
}

// protocol.secagg.honest.
function honest(sites, least) {
  const threshold = Math.max(Math.floor(2 * sites / 3) + 1, least);
  return threshold - Math.max(Math.floor((sites - 1) / 3), 1);
}

function sameEvent(given, wanted) {
  // Python's power and this square root may differ in the last bit.
  const near = Math.abs(given.noise_multiplier - wanted.noise_multiplier) <= 1e-12 * wanted.noise_multiplier;
  const noise_multiplier = near ? wanted.noise_multiplier : given.noise_multiplier;
  return canonical(wanted) === canonical("noise_multiplier" in wanted ? { ...given, noise_multiplier } : given);
}

function install(root) {
  const file = root.querySelector("#key-file"), typed = root.querySelector("#passphrase");
  const button = root.querySelector("[data-sign-now]"), says = root.querySelector("[data-sign-says]");
  const text = document.querySelector("#signed");
  const say = (words, tone) => {
    says.textContent = root.querySelector(`[data-words="${words}"]`).textContent;
    says.className = `alert ${tone}`;
  };
  const now = async () => {
    button.disabled = true;
    try {
      if (!file.files.length) throw new Fault("file");
      say("busy", "note");
      const request = JSON.parse(document.querySelector("#request").textContent);
      const shown = shownOn(document);
      await check(request, shown);
      const officer = await openKey(await file.files[0].text(), typed.value);
      text.value = await sign(request, shown, officer);
      file.value = "";
      say("signed", "good");
      document.querySelector("#code").focus();
    } catch (error) {
      text.value = "";
      say(error instanceof Fault ? error.words : "differs", "alert");
    } finally {
      typed.value = "";
      button.disabled = false;
    }
  };
  button.addEventListener("click", now);
  typed.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); now(); } });
}

const root = document.querySelector("[data-sign]");
if (root) {
  if (await able()) {
    root.querySelector("[data-sign-form]").hidden = false;
    install(root);
  } else {
    root.querySelector("[data-sign-unable]").hidden = false;
  }
}
