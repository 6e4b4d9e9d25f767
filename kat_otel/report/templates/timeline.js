// A timeline that answers: what is under the pointer, moving, zooming, keys, the buttons.
const tip = document.getElementById("tip");
const live = document.getElementById("live");

class Timeline extends Drawing {
  constructor(figure) {
    super(figure);
    this.bind(figure);
  }

  describe(i) {
    const s = this.data.spans, lane = this.data.lanes[s.lane[i]];
    const kind = ["kernel", "copy", "transfer", "waiting for the last rank", "launch", "host waits for the GPU", "host"][s.look[i]];
    const name = s.name[i] < 0 ? `${s.merged[i]} short spans` : this.data.names[s.name[i]];
    return [name, `rank ${lane.rank} · ${kind} · ${time(s.duration[i])} · begins at ${time(s.start[i])}` + (s.flagged[i] ? " · cited by the verdict" : "")];
  }

  hit(px, py) {
    const g = this.g, s = this.data.spans;
    const lane = Math.floor((py - g.top) / g.lane);
    if (lane < 0 || lane >= this.data.lanes.length || px < g.left) return -1;
    let best = -1;
    for (const i of this.order) {
      if (s.lane[i] !== lane) continue;
      const [y, h] = this.band(g, lane, s.band[i]);
      if (py < y - 1 || py > y + h + 1) continue;
      const x0 = this.x(g, s.start[i]), x1 = this.x(g, s.start[i] + s.duration[i]);
      if (px >= x0 - 1.5 && px <= Math.max(x1, x0 + 1.5) + 1) best = i;
    }
    return best;
  }

  show(i, x, y) {
    if (i < 0) { tip.hidden = true; return; }
    const [name, rest] = this.describe(i);
    const bold = document.createElement("b");
    bold.textContent = name.length > 240 ? name.slice(0, 240) + "…" : name;
    tip.replaceChildren(bold, document.createTextNode(rest));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, window.innerWidth - box.width - 6)) + "px";
    tip.style.top = (y + 18 + box.height > window.innerHeight ? y - box.height - 10 : y + 18) + "px";
  }

  zoom(factor, around) {
    const length = this.data.length;
    const size = Math.min(length, Math.max(200, (this.high - this.low) * factor));
    const share = (around - this.low) / (this.high - this.low);
    this.move(around - share * size, size);
  }

  move(low, size) {
    this.low = Math.max(0, Math.min(low, this.data.length - size));
    this.high = this.low + size;
    this.ask();
  }

  pick(i) {
    const s = this.data.spans;
    this.picked = i;
    if (i < 0) return;
    const size = this.high - this.low, from = s.start[i], to = from + s.duration[i];
    if (to < this.low || from > this.high) this.move((from + to) / 2 - size / 2, size);
    this.draw();
    const box = this.canvas.getBoundingClientRect();
    const [y, h] = this.band(this.g, s.lane[i], s.band[i]);
    this.show(i, box.left + Math.max(this.g.left, this.x(this.g, from)), box.top + y + h - 8);
    live.textContent = this.describe(i).join(", ");
  }

  step(byTime, byLane) {
    const s = this.data.spans;
    const lanes = this.data.lanes.length;
    let lane = this.picked < 0 ? Math.max(0, this.data.lanes.findIndex((l) => l.role === ROLE.CULPRIT)) : s.lane[this.picked];
    const now = this.picked < 0 ? this.low : s.start[this.picked];
    if (this.picked >= 0) lane = (lane + byLane + lanes) % lanes;
    const mine = this.order.filter((i) => s.lane[i] === lane && s.band[i] !== BAND.HOST).sort((a, b) => s.start[a] - s.start[b]);
    if (!mine.length) return;
    let at = mine.indexOf(this.picked);
    if (at < 0) { at = mine.findIndex((i) => s.start[i] + s.duration[i] >= now); at = at < 0 ? mine.length - 1 : at; }
    else at = Math.max(0, Math.min(mine.length - 1, at + byTime));
    this.pick(mine[at]);
  }

  bind(figure) {
    const canvas = this.canvas;
    const place = (e) => { const box = canvas.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; };
    let from = null;
    canvas.addEventListener("pointerdown", (e) => {
      from = { x: e.clientX, low: this.low };
      canvas.setPointerCapture(e.pointerId);
      canvas.classList.add("moving");
    });
    canvas.addEventListener("pointermove", (e) => {
      if (from) {
        const perPixel = (this.high - this.low) / (this.g.width - this.g.left - this.g.right);
        this.move(from.low - (e.clientX - from.x) * perPixel, this.high - this.low);
        tip.hidden = true;
      } else this.show(this.hit(...place(e)), e.clientX, e.clientY);
    });
    const end = () => { from = null; canvas.classList.remove("moving"); };
    canvas.addEventListener("pointerup", (e) => { if (from && Math.abs(e.clientX - from.x) < 4) this.show(this.hit(...place(e)), e.clientX, e.clientY); end(); });
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    canvas.addEventListener("blur", () => { tip.hidden = true; this.picked = -1; this.ask(); });
    canvas.addEventListener("dblclick", (e) => this.zoom(0.4, this.t(this.g, place(e)[0])));
    canvas.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && !e.metaKey) return; // a plain wheel scrolls the page
      e.preventDefault();
      this.zoom(Math.exp(e.deltaY * 0.002), this.t(this.g, place(e)[0]));
    }, { passive: false });
    const middle = () => (this.low + this.high) / 2;
    const home = () => { this.move(this.home[0], this.home[1] - this.home[0]); };
    const late = this.data.ghosts.filter((ghost) => ghost.late).sort((a, b) => a.actual - b.actual);
    const visit = (way) => { // the next late arrival beyond the middle of what is shown
      const size = Math.min(this.high - this.low, this.home[1] - this.home[0]), now = middle(), slack = size / 50;
      const next = way > 0 ? late.find((l) => l.actual > now + slack) || late[0] : late.findLast((l) => l.actual < now - slack) || late[late.length - 1];
      this.move(next.actual - size / 2, size);
      live.textContent = `rank ${this.data.lanes[next.lane].rank} arrives ${time(next.excess)} late`;
    };
    const keys = {
      "+": () => this.zoom(0.6, middle()), "=": () => this.zoom(0.6, middle()), "-": () => this.zoom(1 / 0.6, middle()),
      "0": home, ArrowRight: () => this.step(1, 0), ArrowLeft: () => this.step(-1, 0),
      ArrowDown: () => this.step(0, 1), ArrowUp: () => this.step(0, -1),
      Escape: () => { tip.hidden = true; this.picked = -1; this.ask(); },
    };
    canvas.addEventListener("keydown", (e) => {
      if (e.ctrlKey || e.metaKey || e.altKey || !Object.hasOwn(keys, e.key)) return;
      e.preventDefault();
      keys[e.key]();
    });
    const deeds = { in: keys["+"], out: keys["-"], home, all: () => this.move(0, this.data.length),
      incident: () => this.move(this.data.whole[0], this.data.whole[1] - this.data.whole[0]),
      back: () => visit(-1), on: () => visit(1) };
    for (const button of figure.querySelectorAll("[data-do]")) button.addEventListener("click", deeds[button.dataset.do]);
  }
}
