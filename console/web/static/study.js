// Moves the cost planner: sliders and fields go together, and the server draws the part that depends on them.
const form = document.querySelector("[data-planner]");

if (form) {
  const shown = document.querySelector("[data-planner-shown]");
  const fault = document.querySelector("[data-planner-fault]");
  const said = document.querySelector("[data-planner-said]");
  const fields = [form.elements.rounds, form.elements.noise];
  let timer = 0;
  let running = null;

  const parsed = (text) => [...new DOMParser().parseFromString(text, "text/html").body.childNodes];

  const ask = async () => {
    running?.abort();
    const mine = running = new AbortController();
    const query = new URLSearchParams(fields.map((field) => [field.name, field.value]));
    shown.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(`${form.dataset.planner}?${query}`, { signal: mine.signal, redirect: "error" });
      if (answer.status !== 200 && answer.status !== 400) throw new Error();
      const nodes = parsed(await answer.text());
      if (answer.ok) {
        const open = shown.querySelector("details")?.open;
        shown.replaceChildren(...nodes);
        if (open) shown.querySelector("details").open = true;
        fault.replaceChildren();
        said.textContent = shown.querySelector("[data-said]").dataset.said;
        history.replaceState(null, "", `?${query}#planner`);
      } else {
        fault.replaceChildren(...nodes);
        said.textContent = fault.textContent;
      }
    } catch (error) {
      if (mine.signal.aborted) return;
      said.textContent = said.dataset.lost;
    }
    if (mine === running) shown.removeAttribute("aria-busy");
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(ask, 250); };

  for (const slider of form.querySelectorAll("[data-for]")) {
    const field = form.elements[slider.dataset.for];
    slider.hidden = false;
    slider.addEventListener("input", () => { field.value = slider.value; soon(); });
    field.addEventListener("input", () => { slider.value = field.value; soon(); });
  }
  form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(timer); ask(); });
}
