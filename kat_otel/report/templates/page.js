// The page around the timelines: incidents as tabs, colours and pixels of the screen, saving.
function tabs() {
  const all = [...document.querySelectorAll("[role=tab]")];
  const select = (tab, focus) => {
    for (const other of all) {
      const on = other === tab;
      other.setAttribute("aria-selected", String(on));
      other.tabIndex = on ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = !on;
    }
    if (focus) tab.focus();
    redraws.forEach((redraw) => redraw());
  };
  all.forEach((tab, index) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (e) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: all.length - 1 }[e.key];
      if (to === undefined) return;
      e.preventDefault();
      select(all[(to + all.length) % all.length], true);
    });
  });
  if (all.length) select(all[0]);
}

for (const figure of document.querySelectorAll("figure.timeline")) {
  if (figure.querySelector("canvas")) new Timeline(figure);
}
tabs();
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((redraw) => redraw()));
(function sharp() { // a window that moves to another screen is drawn anew in that one's pixels
  const media = window.matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
  media.addEventListener("change", () => { redraws.forEach((redraw) => redraw()); sharp(); }, { once: true });
})();
const save = document.getElementById("save");
save.hidden = false;
save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([document.getElementById("kat-report").textContent], { type: "application/json" }));
  link.download = "kat-report.json";
  link.click();
  URL.revokeObjectURL(link.href);
});
if (!root.dataset.kat) root.dataset.kat = "ready";
