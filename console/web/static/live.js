// Keeps the page's live places at what the daemon says. Texts are put in as text, never as HTML.
const section = document.querySelector("[data-live-source]");

if (section) {
  const note = section.querySelector("[data-live-note]");
  const source = new EventSource(section.dataset.liveSource);
  const say = (text) => { if (note && note.textContent !== text) note.textContent = text; };
  source.addEventListener("status", (event) => {
    const words = JSON.parse(event.data);
    say("");
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
