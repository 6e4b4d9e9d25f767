"use strict";
// Draws a timeline on its canvas. No library, no network: the data stands in the page as JSON,
// and every text reaches the page through textContent or fillText.
const root = document.documentElement;
window.addEventListener("error", (e) => { root.dataset.kat = "error: " + e.message; });
const BAND = { HOST: 0, WORK: 1, COLLECTIVE: 2 };
const ROLE = { OTHER: 0, VICTIM: 1, CULPRIT: 2 };
const redraws = [];

const UNITS = [["ns", 1], ["µs", 1e3], ["ms", 1e6], ["s", 1e9]];

function unit(ns) {
  let at = 0;
  while (at < 3 && Math.abs(ns) >= UNITS[at + 1][1] * 0.9995) at++;
  return UNITS[at];
}

function time(ns) {
  const [name, size] = unit(ns);
  const value = ns / size;
  const digits = Math.abs(value) >= 99.95 || Number.isInteger(value) ? 0 : Math.abs(value) >= 0.95 ? 1 : 2;
  return value.toFixed(digits) + " " + name;
}

function tick(ns, step) { // as many digits as tell it from the next one
  const [name, size] = unit(ns);
  const digits = Math.max(0, -Math.floor(Math.log10(step / size) + 1e-9));
  return (ns / size).toFixed(Math.min(digits, 6)) + " " + name;
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

class Drawing {
  constructor(figure) {
    this.data = JSON.parse(figure.querySelector("script.data").textContent);
    this.canvas = figure.querySelector("canvas");
    this.ctx = this.canvas.getContext("2d");
    this.home = this.data.view;
    [this.low, this.high] = this.home;
    this.picked = -1;
    const s = this.data.spans;
    // what the incident cites is drawn last, waits before transfers, merged ones first
    this.order = Array.from(s.lane.keys()).sort((a, b) => s.flagged[a] - s.flagged[b] || s.look[a] - s.look[b]);
    this.hasHost = s.band.includes(BAND.HOST);
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
      if (x > g.left + 14 && x < g.width - 22) ctx.fillText(tick(t, step), x, 12);
    }
  }

  drawSpans(ctx, g, c) {
    const s = this.data.spans;
    const culprit = this.data.lanes.map((lane) => lane.role === ROLE.CULPRIT);
    const paint = [c.compute, c.copy, c.transfer, hatch(ctx, c.wait, c["wait-wash"]), c.host, c.host, c.host];
    const texts = [];
    const place = (lane, band, from) => `${lane}/${band}/${from}`;
    const said = new Set(this.data.ghosts.filter((o) => !o.late).map((o) => place(o.lane, o.band, o.from)));
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
      if (h >= 13 && room > 44 && look <= 3 && s.merged[i] === 1 && !said.has(place(s.lane[i], s.band[i], s.start[i]))) texts.push([i, left, room, y, h]);
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
}
