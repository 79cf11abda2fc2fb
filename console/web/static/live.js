// Keeps the page's live places at what the console says. Texts are put in as text; larger parts come from the page anew.
const section = document.querySelector("[data-live-source]");

if (section) {
  const note = section.querySelector("[data-live-note]");
  const source = new EventSource(section.dataset.liveSource);
  const say = (text) => { if (note && note.textContent !== text) note.textContent = text; };
  let heard, timer = null;

  // The page's own address, asked anew: the same words for the same reader. At most once a second.
  const renew = async () => {
    timer = null;
    try {
      const answer = await fetch(window.location.href, { headers: { "X-Wardround-Itself": "1" } });
      if (!answer.ok || answer.redirected) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-fresh]")) {
        const now = page.getElementById(part.id);
        if (!now || now.innerHTML === part.innerHTML) continue;
        const focus = part.contains(document.activeElement) && document.activeElement.id;
        part.replaceChildren(...now.childNodes);
        if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
      }
    } catch { /* asked again at the next change */ }
  };

  source.addEventListener("status", (event) => {
    const words = JSON.parse(event.data);
    say("");
    if (words.fresh !== undefined && words.fresh !== heard) {
      heard = words.fresh;
      timer ??= setTimeout(renew, 1000);
    }
    for (const place of document.querySelectorAll("[data-live]")) {
      const text = words[place.dataset.live];
      if (text !== undefined && place.textContent !== text) place.textContent = text;
      if ("liveTone" in place.dataset) place.className = `badge ${words.tone}`;
    }
  });
  source.addEventListener("over", () => { source.close(); window.location.reload(); });
  source.addEventListener("error", () => say(note ? note.dataset.lost : ""));
  window.addEventListener("pagehide", () => source.close());
}
