"use strict";
// Draws the timelines and switches between incidents. No library, no network: the data stands
// in the page as JSON, and every text reaches the page through textContent or fillText.
(() => {
  const root = document.documentElement;
  window.addEventListener("error", (e) => { root.dataset.kat = "error: " + e.message; });
  const BAND = { HOST: 0, WORK: 1, COLLECTIVE: 2 };
  const LOOK = ["compute", "copy", "transfer", "wait", "launch", "sync", "host"];
  const ROLE = { OTHER: 0, VICTIM: 1, CULPRIT: 2 };
  const tip = document.getElementById("tip");
  const live = document.getElementById("live");
  const redraws = [];

  function time(ns) {
    const units = [["ns", 1], ["µs", 1e3], ["ms", 1e6], ["s", 1e9]];
    let at = 0;
    while (at < 3 && Math.abs(ns) >= units[at + 1][1] * 0.9995) at++;
    const value = ns / units[at][1];
    const digits = Math.abs(value) >= 99.95 || Number.isInteger(value) ? 0 : Math.abs(value) >= 0.95 ? 1 : 2;
    return value.toFixed(digits) + " " + units[at][0];
  }

  const middleOf = (y, h) => y + h / 2 + 0.5;

  function short(name) {
    return name.replace(/^void\s+/, "").replace(/^(nccl|rccl)(Dev)?Kernel_/, "").replace(/[<(].*$/, "").replace(/^.*::(?=\w)/, "");
  }

  function palette() {
    const style = getComputedStyle(root);
    const out = {};
    for (const key of ["page", "card", "ink", "soft", "line", "faint", "culprit", "culprit-ink", "culprit-wash", "wait", "wait-wash", "transfer", "compute", "copy", "host"]) {
      out[key] = style.getPropertyValue("--" + key).trim();
    }
    out.font = getComputedStyle(document.body).fontFamily;
    return out;
  }

  function hatch(ctx, ink, ground) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 7;
    const t = tile.getContext("2d");
    t.fillStyle = ground;
    t.fillRect(0, 0, 7, 7);
    t.strokeStyle = ink;
    t.globalAlpha = 0.75;
    t.lineWidth = 1.3;
    t.beginPath();
    for (const x of [-7, 0, 7]) { t.moveTo(x, 7); t.lineTo(x + 7, 0); }
    t.stroke();
    return ctx.createPattern(tile, "repeat");
  }

  function tickStep(range, wanted) {
    const rough = range / Math.max(2, wanted);
    const power = Math.pow(10, Math.floor(Math.log10(rough)));
    return [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  }

  class Timeline {
    constructor(figure) {
      this.data = JSON.parse(figure.querySelector("script.data").textContent);
      this.canvas = figure.querySelector("canvas");
      this.ctx = this.canvas.getContext("2d");
      this.home = this.data.view;
      [this.low, this.high] = this.home;
      this.picked = -1;
      const s = this.data.spans;
      this.count = s.lane.length;
      // what the incident cites is drawn last, waits before transfers, merged ones first
      this.order = Array.from(s.lane.keys()).sort((a, b) => s.flagged[a] - s.flagged[b] || s.look[a] - s.look[b]);
      this.hasHost = s.band.includes(BAND.HOST);
      this.bind(figure);
      new ResizeObserver(() => this.ask()).observe(this.canvas.parentElement);
      redraws.push(() => this.ask());
      this.draw();
    }

    geometry() {
      const width = this.canvas.parentElement.clientWidth;
      const narrow = width < 620;
      const lanes = this.data.lanes.length;
      const host = this.hasHost ? 6 : 0;
      const dense = lanes > 12;
      const work = dense ? 9 : 13, comm = dense ? 10 : 17, pad = dense ? 3 : 5;
      const lane = pad * 2 + (host ? host + 2 : 0) + work + 2 + comm;
      return { width, narrow, left: narrow ? 62 : 128, right: 10, top: 34, lane, host, work, comm, pad, height: 34 + lane * lanes + 8 };
    }

    band(g, lane, band) {
      let y = g.top + lane * g.lane + g.pad;
      if (band === BAND.HOST) return [y, g.host];
      if (g.host) y += g.host + 2;
      if (band === BAND.WORK) return [y, g.work];
      return [y + g.work + 2, g.comm];
    }

    x(g, t) { return g.left + ((t - this.low) / (this.high - this.low)) * (g.width - g.left - g.right); }
    t(g, x) { return this.low + ((x - g.left) / (g.width - g.left - g.right)) * (this.high - this.low); }

    ask() {
      if (this.pending) return;
      this.pending = true;
      requestAnimationFrame(() => { this.pending = false; this.draw(); });
    }

    draw() {
      const g = this.g = this.geometry();
      if (g.width <= 0) return; // its tab is not shown
      const ratio = window.devicePixelRatio || 1;
      this.canvas.style.height = g.height + "px";
      this.canvas.width = Math.round(g.width * ratio);
      this.canvas.height = Math.round(g.height * ratio);
      const ctx = this.ctx, c = palette();
      ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
      ctx.fillStyle = c.card;
      ctx.fillRect(0, 0, g.width, g.height);
      this.drawLanes(ctx, g, c);
      ctx.save();
      ctx.beginPath();
      ctx.rect(g.left, 0, g.width - g.left, g.height);
      ctx.clip();
      this.drawAxis(ctx, g, c);
      this.drawSpans(ctx, g, c);
      this.drawGhosts(ctx, g, c);
      ctx.restore();
      root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
    }

    drawLanes(ctx, g, c) {
      this.data.lanes.forEach((lane, index) => {
        const y = g.top + index * g.lane;
        const culprit = lane.role === ROLE.CULPRIT;
        ctx.fillStyle = culprit ? c["culprit-wash"] : index % 2 ? c.card : c.faint;
        ctx.globalAlpha = culprit ? 1 : 0.45;
        ctx.fillRect(0, y, g.width, g.lane);
        ctx.globalAlpha = 1;
        if (culprit) { ctx.fillStyle = c.culprit; ctx.fillRect(0, y, 4, g.lane); }
        const middle = y + g.lane / 2;
        const two = g.lane >= 34;
        ctx.textBaseline = "middle";
        ctx.textAlign = "left";
        ctx.fillStyle = culprit ? c["culprit-ink"] : c.ink;
        ctx.font = `${culprit ? 700 : 550} 13px ${c.font}`;
        const label = lane.rank < 0 ? "no rank" : (g.narrow ? "" : "rank ") + lane.rank;
        ctx.fillText(label, 12, two ? middle - 7 : middle);
        const said = culprit ? "culprit" : lane.wait > 0 ? (g.narrow ? "" : "waits ") + time(lane.wait) : "";
        ctx.font = `${culprit ? 650 : 400} ${g.narrow ? 10.5 : 11.5}px ${c.font}`;
        ctx.fillStyle = culprit ? c["culprit-ink"] : lane.wait > 0 ? c.wait : c.soft;
        ctx.fillText(said, two ? 12 : (g.narrow ? 28 : 62), two ? middle + 8 : middle, g.left - (two ? 14 : 64));
      });
    }

    drawAxis(ctx, g, c) {
      const step = tickStep(this.high - this.low, (g.width - g.left) / 90);
      ctx.font = `400 11px ${c.font}`;
      ctx.textBaseline = "alphabetic";
      ctx.textAlign = "center";
      for (let t = Math.ceil(this.low / step) * step; t <= this.high; t += step) {
        const x = Math.round(this.x(g, t)) + 0.5;
        ctx.strokeStyle = c.line;
        ctx.lineWidth = 1;
        ctx.beginPath();
        ctx.moveTo(x, g.top - 4);
        ctx.lineTo(x, g.height - 8);
        ctx.stroke();
        ctx.fillStyle = c.soft;
        if (x > g.left + 14 && x < g.width - 22) ctx.fillText(time(t), x, 12);
      }
    }

    drawSpans(ctx, g, c) {
      const s = this.data.spans;
      const culprit = this.data.lanes.map((lane) => lane.role === ROLE.CULPRIT);
      const paint = [c.compute, c.copy, c.transfer, hatch(ctx, c.wait, c["wait-wash"]), c.host, c.host, c.host];
      const texts = [];
      for (const i of this.order) {
        const x0 = this.x(g, s.start[i]), x1 = this.x(g, s.start[i] + s.duration[i]);
        if (x1 < g.left || x0 > g.width) continue;
        const [y, h] = this.band(g, s.lane[i], s.band[i]);
        const width = Math.max(x1 - x0, s.band[i] === BAND.HOST ? 0.6 : 1.2);
        const look = s.look[i];
        const guilty = s.flagged[i] && culprit[s.lane[i]] && look !== 3;
        // what was merged is as strong as it is dense: a sparse row must not look like a busy one
        const dense = s.fill[i] < 100 ? 0.15 + 0.0085 * s.fill[i] : 1;
        ctx.globalAlpha = dense * (look === 6 ? 0.4 : look === 5 ? 0.18 : 1);
        ctx.fillStyle = guilty ? c.culprit : paint[look];
        ctx.fillRect(x0, y, guilty ? Math.max(width, 2.5) : width, h);
        ctx.globalAlpha = 1;
        if (look === 3 && s.fill[i] === 100) { ctx.strokeStyle = c.wait; ctx.lineWidth = 1; ctx.globalAlpha = 0.6; ctx.strokeRect(x0 + 0.5, y + 0.5, Math.max(0, width - 1), h - 1); ctx.globalAlpha = 1; }
        if (i === this.picked) { ctx.strokeStyle = c.ink; ctx.lineWidth = 2; ctx.strokeRect(x0 - 1, y - 1, width + 2, h + 2); }
        const left = Math.max(x0, g.left), room = Math.min(x1, g.width) - left;
        if (h >= 13 && room > 44 && look <= 3 && s.merged[i] === 1) texts.push([i, left, room, y, h]);
      }
      ctx.textBaseline = "middle";
      for (const [i, x, room, y, h] of texts) {
        const wait = s.look[i] === 3;
        const text = wait ? "waits " + time(s.duration[i]) : short(this.data.names[s.name[i]]);
        ctx.font = `${wait ? 650 : 500} 11px ${c.font}`;
        const size = ctx.measureText(text).width;
        if (size > room - 8 && (wait || room < 56)) continue;
        if (wait) { // a plate keeps the words readable on the hatching
          const at = x + (room - size) / 2;
          ctx.fillStyle = c["wait-wash"];
          ctx.fillRect(at - 4, y + 1.5, size + 8, h - 3);
          ctx.fillStyle = c.wait;
          ctx.textAlign = "left";
          ctx.fillText(text, at, y + h / 2 + 0.5);
        } else {
          ctx.save();
          ctx.beginPath();
          ctx.rect(x, y, room - 3, h);
          ctx.clip();
          ctx.fillStyle = s.look[i] === 0 ? c.ink : c.card;
          ctx.textAlign = "left";
          ctx.fillText(text, x + 4, y + h / 2 + 0.5);
          ctx.restore();
        }
      }
    }

    drawGhosts(ctx, g, c) {
      const taken = [];
      this.data.ghosts.forEach((ghost, index) => {
        const lane = this.data.lanes[ghost.lane];
        const [y, h] = this.band(g, ghost.lane, ghost.band);
        const x0 = this.x(g, ghost.from), x1 = Math.max(this.x(g, ghost.to), x0 + 9), xa = this.x(g, ghost.actual);
        if (Math.max(xa, x1) < g.left || x0 > g.width) return;
        ctx.strokeStyle = ctx.fillStyle = c.culprit;
        if (ghost.late && index < 6) { // the moment for which everyone waits
          ctx.lineWidth = index < 3 ? 1.6 : 1;
          ctx.globalAlpha = index < 3 ? 0.9 : 0.5;
          ctx.beginPath();
          ctx.moveTo(xa, g.top - 6);
          ctx.lineTo(xa, g.height - 8);
          ctx.stroke();
          ctx.globalAlpha = 1;
          if (xa > g.left) this.flag(ctx, g, c, taken, xa, `rank ${lane.rank} arrives`);
        }
        ctx.lineWidth = 1.5;
        if (!ghost.late) { // the part that was expected in the usual colour, the rest stays red
          ctx.fillStyle = c.compute;
          ctx.fillRect(x0, y, x1 - x0, h);
          ctx.strokeStyle = c.ink;
        }
        ctx.setLineDash([4, 3]);
        ctx.strokeRect(x0 + 0.75, y + 0.75, x1 - x0 - 1.5, h - 1.5);
        ctx.setLineDash([]);
        if (!ghost.late) {
          const more = "+" + time(ghost.excess), end = this.x(g, ghost.to + ghost.excess);
          ctx.font = `700 11px ${c.font}`;
          if (end - x1 > ctx.measureText(more).width + 8) {
            ctx.fillStyle = c.card;
            ctx.textAlign = "left";
            ctx.textBaseline = "middle";
            ctx.fillText(more, x1 + 5, middleOf(y, h));
          }
          return;
        }
        const middle = middleOf(y, h);
        if (xa - x1 > 12) {
          ctx.lineWidth = 1.5;
          ctx.beginPath();
          ctx.moveTo(x1 + 1, middle);
          ctx.lineTo(xa - 2, middle);
          ctx.moveTo(xa - 8, middle - 4);
          ctx.lineTo(xa - 2, middle);
          ctx.lineTo(xa - 8, middle + 4);
          ctx.stroke();
        }
        const said = time(ghost.excess) + " late";
        ctx.font = `700 11.5px ${c.font}`;
        const size = ctx.measureText(said).width;
        const a = Math.max(x1, g.left), b = Math.min(xa, g.width);
        if (b - a > size + 26) {
          const at = a + (b - a - size) / 2;
          ctx.fillStyle = c["culprit-wash"];
          ctx.fillRect(at - 4, y, size + 8, h);
          ctx.fillStyle = c["culprit-ink"];
          ctx.textAlign = "left";
          ctx.textBaseline = "middle";
          ctx.fillText(said, at, middle + 0.5);
        }
      });
    }

    flag(ctx, g, c, taken, x, text) {
      ctx.font = `650 11px ${c.font}`;
      const size = ctx.measureText(text).width + 10;
      const at = Math.min(Math.max(x - size / 2, g.left), g.width - size);
      if (taken.some(([a, b]) => at < b + 4 && at + size > a - 4)) return;
      taken.push([at, at + size]);
      ctx.fillStyle = c.culprit;
      ctx.fillRect(at, 15.5, size, 15);
      ctx.fillStyle = c.card;
      ctx.textAlign = "left";
      ctx.textBaseline = "middle";
      ctx.fillText(text, at + 5, 23.5);
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
})();
