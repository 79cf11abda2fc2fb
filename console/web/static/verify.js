// Shows how far the check of the ledger is, and loads the page anew when it has ended.
const section = document.querySelector("[data-progress]");

if (section) {
  const bar = section.querySelector("progress");
  const words = section.querySelector("[data-words]");
  const look = async () => {
    try {
      const answer = await fetch(section.dataset.progress, { redirect: "error" });
      const said = await answer.json();
      if (!said.running) return window.location.reload();
      bar.max = said.most;
      bar.value = said.value;
      if (words.textContent !== said.words) words.textContent = said.words;
    } catch {
      // The session is over or the console is down: the page says so when it is loaded anew.
      return window.location.reload();
    }
    setTimeout(look, 1000);
  };
  setTimeout(look, 500);
}
