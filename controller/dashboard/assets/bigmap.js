// The map of a mesh with more sites than elements can be drawn smoothly: on a canvas,
// which can be moved and enlarged. Arrow keys choose a site, Enter opens it.

import { el } from "./html.js";
import { projection } from "./map.js";
import { grade, percent, rate } from "./model.js";

/** @import {Flow, Way} from "./model.js" */
/** @import {Site} from "./types.js" */

const COLOURS = ["text", "soft", "line", "card", "good", "busy", "full", "none", "flow"];
const LEAST = 1, MOST = 40, TAU = 2 * Math.PI;

/** @typedef {{site: Site, x: number, y: number}} Spot */

/** The map on a canvas. */
export class BigMap {
  constructor() {
    this.canvas = /** @type {HTMLCanvasElement} */ (el("canvas", { class: "bigmap", tabindex: "0", role: "application", "aria-label": "Map of the sites: arrow keys choose one, Enter opens it, plus and minus enlarge. The view Sites says the same as a table." }));
    this.chosenText = el("p", { class: "soft", "aria-live": "polite" }, "Drag to move, turn the wheel or press + and - to enlarge.");
    this.element = el("div", {}, this.canvas, this.chosenText);
    this.brush = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    /** @type {Site[]} */
    this.sites = [];
    /** @type {Flow[]} */
    this.flows = [];
    /** @type {Way[]} */
    this.ways = [];
    /** @type {Map<string, Spot>} */
    this.spots = new Map();
    this.chosen = "";
    this.zoom = 1;
    this.shift = { x: 0, y: 0 };
    this.asked = false;
    this.width = 0;
    this.height = 0;
    this.listen();
  }

  listen() {
    let dragged = false;
    /** @type {{x: number, y: number}|null} */
    let last = null;
    this.canvas.addEventListener("pointerdown", (e) => {
      last = { x: e.clientX, y: e.clientY };
      dragged = false;
      this.canvas.setPointerCapture(e.pointerId);
    });
    this.canvas.addEventListener("pointermove", (e) => {
      if (!last) return;
      const dx = e.clientX - last.x, dy = e.clientY - last.y;
      if (!dragged && Math.hypot(dx, dy) < 4) return;
      dragged = true;
      last = { x: e.clientX, y: e.clientY };
      this.shift.x += dx;
      this.shift.y += dy;
      this.again();
    });
    this.canvas.addEventListener("pointerup", (e) => {
      last = null;
      if (dragged) return;
      const box = this.canvas.getBoundingClientRect();
      const near = this.nearest(e.clientX - box.left, e.clientY - box.top, () => true);
      if (near && near.d < 16) this.open(near.spot.site.name);
    });
    this.canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      const box = this.canvas.getBoundingClientRect();
      this.enlarge(Math.exp(-e.deltaY / 400), e.clientX - box.left, e.clientY - box.top);
    }, { passive: false });
    this.canvas.addEventListener("keydown", (e) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
      if (way) this.choose(way[0], way[1]);
      else if (e.key === "Enter" && this.chosen) this.open(this.chosen);
      else if (e.key === "+" || e.key === "-") this.enlarge(e.key === "+" ? 1.3 : 1 / 1.3, this.width / 2, this.height / 2);
      else return;
      e.preventDefault();
    });
    new ResizeObserver(() => this.again()).observe(this.canvas);
  }

  /** @param {string} name */
  open(name) { location.hash = `#/site/${encodeURIComponent(name)}`; }

  /**
   * @param {number} by
   * @param {number} x where what is under it stays
   * @param {number} y
   */
  enlarge(by, x, y) {
    const zoom = Math.min(MOST, Math.max(LEAST, this.zoom * by)), f = zoom / this.zoom;
    this.shift = { x: x - (x - this.shift.x) * f, y: y - (y - this.shift.y) * f };
    this.zoom = zoom;
    this.again();
  }

  /**
   * The site that is drawn nearest to a point, of those that qualify.
   * @param {number} x
   * @param {number} y
   * @param {(s: Spot) => boolean} fits
   */
  nearest(x, y, fits) {
    /** @type {{spot: Spot, d: number}|null} */
    let best = null;
    for (const spot of this.spots.values()) {
      const d = Math.hypot(spot.x - x, spot.y - y);
      if (fits(spot) && (!best || d < best.d)) best = { spot, d };
    }
    return best;
  }

  /**
   * Chooses the next site in a direction, or without one chosen that in the middle.
   * @param {number} dx
   * @param {number} dy
   */
  choose(dx, dy) {
    const from = this.spots.get(this.chosen);
    const at = from ?? { x: this.width / 2, y: this.height / 2 };
    const next = this.nearest(at.x, at.y, (s) => {
      if (!from) return true;
      const along = (s.x - at.x) * dx + (s.y - at.y) * dy, aside = Math.abs((s.x - at.x) * dy) + Math.abs((s.y - at.y) * dx);
      return s !== from && along > 0 && aside <= along;
    });
    if (!next) return;
    this.chosen = next.spot.site.name;
    const { x, y } = next.spot;
    if (x < 20 || y < 20 || x > this.width - 20 || y > this.height - 20) {
      this.shift.x += this.width / 2 - x;
      this.shift.y += this.height / 2 - y;
    }
    this.again();
  }

  /** Draws once more before the next picture. */
  again() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.draw(this.sites, this.flows, this.ways);
    });
  }

  /**
   * @param {Site[]} sites
   * @param {Flow[]} flows
   * @param {Way[]} ways
   */
  draw(sites, flows, ways) {
    Object.assign(this, { sites, flows, ways });
    const dots = devicePixelRatio || 1, w = this.canvas.clientWidth, h = this.canvas.clientHeight;
    if (w === 0) return; // not on the page
    if (this.canvas.width !== Math.round(w * dots) || this.canvas.height !== Math.round(h * dots)) {
      this.canvas.width = Math.round(w * dots);
      this.canvas.height = Math.round(h * dots);
    }
    this.width = w;
    this.height = h;
    const c = this.brush, style = getComputedStyle(this.canvas);
    const colour = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    c.setTransform(dots, 0, 0, dots, 0, 0);
    c.clearRect(0, 0, w, h);
    this.place(sites, w, h);
    c.lineWidth = 1;
    for (const cut of [false, true]) {
      c.strokeStyle = cut ? colour.full : colour.line;
      c.setLineDash(cut ? [6, 5] : []);
      c.beginPath();
      for (const way of ways) {
        const a = this.spots.get(way.a), b = this.spots.get(way.b);
        if (!a || !b || (way.cut !== "") !== cut) continue;
        c.moveTo(a.x, a.y);
        c.lineTo(b.x, b.y);
      }
      c.stroke();
    }
    c.setLineDash([]);
    this.drawFlows(flows, colour.flow);
    for (const kind of /** @type {const} */ (["none", "good", "busy", "full"])) {
      c.fillStyle = colour[kind];
      c.beginPath();
      for (const s of this.spots.values()) {
        if (grade(s.site) !== kind) continue;
        c.moveTo(s.x + 6, s.y);
        c.arc(s.x, s.y, 6, 0, TAU);
      }
      c.fill();
    }
    c.strokeStyle = colour.text;
    c.lineWidth = 2;
    c.beginPath();
    for (const s of this.spots.values()) {
      if (!s.site.traffic) continue;
      c.moveTo(s.x + 9, s.y);
      c.arc(s.x, s.y, 9, 0, TAU);
    }
    c.stroke();
    this.drawNames(colour);
    this.canvas.dataset.sites = String(this.spots.size);
  }

  /**
   * @param {Site[]} sites
   * @param {number} w
   * @param {number} h
   */
  place(sites, w, h) {
    this.spots.clear();
    const p = projection(sites, w, h, 30);
    let lost = 0;
    for (const site of sites) {
      const at = site.lon !== null && site.lat !== null ? p.at(site.lon, site.lat) : { x: w - 30 - 22 * lost++, y: h - 12 };
      this.spots.set(site.name, { site, x: at.x * this.zoom + this.shift.x, y: at.y * this.zoom + this.shift.y });
    }
  }

  /**
   * Straight arrows, those of about the same width in one go.
   * @param {Flow[]} flows
   * @param {string} colour
   */
  drawFlows(flows, colour) {
    const c = this.brush;
    c.strokeStyle = colour;
    c.fillStyle = colour;
    for (let width = 1; width <= 5; width++) {
      c.lineWidth = width;
      c.beginPath();
      /** @type {number[][]} */
      const tips = [];
      for (const f of flows) {
        if (Math.min(5, 1 + Math.floor(1.3 * Math.log10(1 + f.rate))) !== width) continue;
        const a = this.spots.get(f.from), b = this.spots.get(f.to);
        if (!a || !b) continue;
        const dx = b.x - a.x, dy = b.y - a.y, len = Math.hypot(dx, dy);
        if (len < 16) continue;
        const ux = dx / len, uy = dy / len, x = b.x - 8 * ux, y = b.y - 8 * uy, size = 4 + width;
        c.moveTo(a.x, a.y);
        c.lineTo(x - size * ux, y - size * uy);
        tips.push([x, y, x - size * (ux - 0.6 * uy), y - size * (uy + 0.6 * ux), x - size * (ux + 0.6 * uy), y - size * (uy - 0.6 * ux)]);
      }
      c.stroke();
      c.beginPath();
      for (const t of tips) {
        c.moveTo(t[0], t[1]);
        c.lineTo(t[2], t[3]);
        c.lineTo(t[4], t[5]);
      }
      c.fill();
    }
  }

  /**
   * Names where there is room for them, the fullest sites' first, and always the chosen one's.
   * @param {Record<string, string>} colour
   */
  drawNames(colour) {
    const c = this.brush, room = { w: 130, h: 18 };
    c.font = "12px system-ui, sans-serif";
    /** @type {Set<string>} */
    const taken = new Set();
    const order = [...this.spots.values()].filter((s) => s.x > -room.w && s.x < this.width && s.y > 0 && s.y < this.height)
      .sort((a, b) => Number(b.site.name === this.chosen) - Number(a.site.name === this.chosen) || (b.site.load ?? -1) - (a.site.load ?? -1));
    c.strokeStyle = colour.card;
    c.fillStyle = colour.text;
    c.lineWidth = 3;
    for (const s of order) {
      const column = Math.floor(s.x / room.w), line = Math.floor(s.y / room.h);
      const chosen = s.site.name === this.chosen;
      if (!chosen && (taken.has(`${column} ${line}`) || taken.has(`${column + 1} ${line}`))) continue;
      taken.add(`${column} ${line}`).add(`${column + 1} ${line}`);
      const text = `${s.site.name} ${s.site.load === null ? "?" : percent(s.site.load)}`;
      c.strokeText(text, s.x + 11, s.y + 4);
      c.fillText(text, s.x + 11, s.y + 4);
      if (chosen) {
        c.save();
        c.strokeStyle = colour.text;
        c.beginPath();
        c.arc(s.x, s.y, 12, 0, TAU);
        c.stroke();
        c.restore();
        const said = `${s.site.name}: ${s.site.status}${s.site.traffic ? `, ${s.site.traffic}` : ""}, ${s.site.load === null ? "load unknown" : `load ${percent(s.site.load)}`}, ${rate(s.site.served)} requests/s served`;
        if (this.chosenText.textContent !== said) this.chosenText.textContent = said;
      }
    }
  }
}
