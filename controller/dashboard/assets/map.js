// The map: sites at their positions, load as colour and number, arrows of shared load,
// cut ways. Elements are kept and moved, so that focus stays where it is.

import { Layer, say, set, svg } from "./html.js";
import { grade, percent, rate, span } from "./model.js";

/** @import {Flow, Way} from "./model.js" */
/** @import {Site} from "./types.js" */

// The page's units: wide windows, and phones, whose letters would else be too small.
const WIDE = { w: 1000, h: 560 }, NARROW = { w: 520, h: 620 };
const phone = matchMedia("(max-width: 600px)");
let W = WIDE.w, H = WIDE.h;
const EDGE = 90;
/** How near two sites may be drawn, so that both can be read and touched. */
const APART = { x: 64, y: 50 };
/**
 * Degrees to the page: equirectangular around the sites' middle, which over a region
 * is true to shape; longitudes go the short way, across the antimeridian too.
 * @param {Site[]} sites
 * @param {number} w of the page
 * @param {number} h
 * @param {number} edge that stays free around
 */
export function projection(sites, w, h, edge) {
  const placed = sites.filter((s) => s.lon !== null && s.lat !== null);
  let x = 0, y = 0, lat = 0;
  for (const s of placed) {
    const r = /** @type {number} */ (s.lon) * Math.PI / 180;
    x += Math.cos(r);
    y += Math.sin(r);
    lat += /** @type {number} */ (s.lat) / placed.length;
  }
  const middle = placed.length ? Math.atan2(y, x) * 180 / Math.PI : 0;
  const stretch = Math.max(0.05, Math.cos(lat * Math.PI / 180));
  const flat = (/** @type {number} */ lon, /** @type {number} */ la) => {
    const d = ((lon - middle + 540) % 360) - 180;
    return [d * stretch, -(la - lat)];
  };
  let minX = Infinity, maxX = -Infinity, minY = Infinity, maxY = -Infinity;
  for (const s of placed) {
    const [px, py] = flat(/** @type {number} */ (s.lon), /** @type {number} */ (s.lat));
    minX = Math.min(minX, px); maxX = Math.max(maxX, px);
    minY = Math.min(minY, py); maxY = Math.max(maxY, py);
  }
  const scale = Math.min((w - 2 * edge) / Math.max(maxX - minX, 1e-3), (h - 2 * edge) / Math.max(maxY - minY, 1e-3));
  const cx = (minX + maxX) / 2, cy = (minY + maxY) / 2;
  return {
    scale,
    at: (/** @type {number} */ lon, /** @type {number} */ la) => {
      const [px, py] = flat(lon, la);
      return { x: w / 2 + (px - cx) * scale, y: h / 2 + (py - cy) * scale };
    },
  };
}

/**
 * Moves sites that are drawn over each other apart, as little as it takes.
 * @param {{x: number, y: number}[]} points
 */
function declutter(points) {
  for (let round = 0; round < 60; round++) {
    let moved = false;
    for (let i = 0; i < points.length; i++) {
      for (let j = i + 1; j < points.length; j++) {
        const a = points[i], b = points[j];
        let dx = (b.x - a.x) / APART.x, dy = (b.y - a.y) / APART.y;
        let d = Math.hypot(dx, dy);
        if (d >= 1) continue;
        if (d < 1e-6) [dx, dy, d] = [Math.cos(j), Math.sin(j), 1];
        const push = (1 - Math.min(d, 0.999)) / 2 + 0.01;
        a.x -= dx / d * push * APART.x; b.x += dx / d * push * APART.x;
        a.y -= dy / d * push * APART.y; b.y += dy / d * push * APART.y;
        moved = true;
      }
    }
    if (!moved) return;
  }
}

/** The map of the mesh. */
export class Map_ {
  constructor() {
    this.element = /** @type {SVGSVGElement} */ (svg("svg", { class: "map", role: "group", "aria-label": "Map of the sites" }));
    this.grid = new Layer(this.element);
    this.ways = new Layer(this.element);
    this.flows = new Layer(this.element);
    this.sites = new Layer(this.element);
    this.labels = new Layer(this.element);
  }

  /**
   * @param {Site[]} sites
   * @param {Flow[]} flows
   * @param {Way[]} ways
   */
  draw(sites, flows, ways) {
    ({ w: W, h: H } = phone.matches ? NARROW : WIDE);
    set(this.element, { viewBox: `0 0 ${W} ${H}` });
    const p = projection(sites, W, H, EDGE);
    /** @type {Map<string, {x: number, y: number}>} */
    const at = new Map();
    let lost = 0;
    for (const s of sites) {
      if (s.lon !== null && s.lat !== null) at.set(s.name, p.at(s.lon, s.lat));
      else at.set(s.name, { x: W - 170 - 150 * lost++, y: H - 34 }); // no position: at the lower edge
    }
    declutter([...at.values()]);
    this.drawScale(p.scale, sites.some((s) => s.lon !== null));
    for (const w of ways) {
      const a = at.get(w.a), b = at.get(w.b);
      if (!a || !b) continue;
      const g = this.ways.get(`${w.a} ${w.b}`, () => {
        const g = svg("g");
        g.append(svg("title"), svg("path"), svg("path", { class: "cross" }));
        return g;
      });
      const [title, line, cross] = g.children;
      set(g, w.cut ? { "data-cut": `${w.a} ${w.b}` } : {});
      if (!w.cut) g.removeAttribute("data-cut");
      say(title, w.cut ? `cut: ${w.cut}` : `way between ${w.a} and ${w.b}`);
      set(line, { class: w.cut ? "cut" : "way", d: `M${a.x} ${a.y}L${b.x} ${b.y}` });
      const mx = (a.x + b.x) / 2, my = (a.y + b.y) / 2;
      set(cross, { d: w.cut ? `M${mx - 8} ${my - 8}l16 16M${mx + 8} ${my - 8}l-16 16` : "" });
    }
    this.ways.sweep();
    for (const f of flows) {
      const a = at.get(f.from), b = at.get(f.to);
      if (a && b) this.drawFlow(f, a, b);
    }
    this.flows.sweep();
    this.labels.sweep();
    for (const s of sites) {
      const here = /** @type {{x: number, y: number}} */ (at.get(s.name));
      // The name stands at the right, where neither the edge nor a neighbour is near.
      const left = here.x > W - 190 || [...at.values()].some((o) => o !== here && o.x > here.x && o.x - here.x < 190 && Math.abs(o.y - here.y) < 34);
      this.drawSite(s, here, left);
    }
    this.sites.sweep();
  }

  /**
   * @param {number} scale
   * @param {boolean} placed
   */
  drawScale(scale, placed) {
    // A degree of latitude is 111.2 km.
    let km = 1;
    while (km / 111.2 * scale < 80) km *= km.toString()[0] === "2" ? 2.5 : 2;
    const g = this.grid.get("scale", () => {
      const g = svg("g");
      g.append(svg("path", { class: "grid" }), svg("text", { class: "small" }));
      return g;
    });
    set(g.children[0], { d: placed ? `M20 ${H - 16}v-6m0 3h${km / 111.2 * scale}m0 -3v6` : "" });
    set(g.children[1], { x: 24, y: H - 28 });
    say(g.children[1], placed ? `${Math.round(km)} km` : "");
  }

  /**
   * @param {Flow} f
   * @param {{x: number, y: number}} a
   * @param {{x: number, y: number}} b
   */
  drawFlow(f, a, b) {
    const key = `${f.from} ${f.to}`;
    const g = this.flows.get(key, () => {
      const g = svg("g");
      g.append(svg("title"), svg("path", { class: "flow" }), svg("path", { class: "tip" }));
      return g;
    });
    const dx = b.x - a.x, dy = b.y - a.y, len = Math.hypot(dx, dy) || 1;
    const ux = dx / len, uy = dy / len;
    // Bent to the left of its direction, so that the two of a pair do not meet.
    const bend = Math.min(60, len * 0.18), gap = 26;
    const mx = (a.x + b.x) / 2 + uy * bend, my = (a.y + b.y) / 2 - ux * bend;
    const tx = b.x - mx, ty = b.y - my, tl = Math.hypot(tx, ty) || 1;
    const ex = b.x - tx / tl * gap, ey = b.y - ty / tl * gap;
    const wide = Math.min(9, 1.5 + 1.6 * Math.log10(1 + f.rate));
    set(g, { "data-flow": key, "data-rate": f.rate.toFixed(2) });
    say(g.children[0], `${rate(f.rate)} requests/s of ${f.from}'s users are served at ${f.to}`);
    set(g.children[1], { d: `M${a.x} ${a.y}Q${mx} ${my} ${ex} ${ey}`, "stroke-width": wide });
    const px = -ty / tl, py = tx / tl, size = 6 + wide;
    set(g.children[2], { d: `M${ex + tx / tl * size} ${ey + ty / tl * size}L${ex + px * size * 0.7} ${ey + py * size * 0.7}L${ex - px * size * 0.7} ${ey - py * size * 0.7}Z` });
    const label = this.labels.get(key, () => svg("text", { class: "rate", "text-anchor": "middle" }));
    // Past the middle of its way, where that of the other direction is not; what is
    // next to nothing has its arrow and its title only.
    const t = 0.62, q = (/** @type {number} */ p0, /** @type {number} */ p1, /** @type {number} */ p2) => (1 - t) ** 2 * p0 + 2 * t * (1 - t) * p1 + t * t * p2;
    set(label, { x: q(a.x, mx, b.x), y: q(a.y, my, b.y) - 4 });
    say(label, f.rate >= 1 ? `${rate(f.rate)}/s` : "");
  }

  /**
   * @param {Site} s
   * @param {{x: number, y: number}} at
   * @param {boolean} left where the name stands
   */
  drawSite(s, at, left) {
    const a = this.sites.get(s.name, () => {
      const a = svg("a", { href: `#/site/${encodeURIComponent(s.name)}`, "data-site": s.name });
      a.append(svg("circle", { r: 18, class: "dot" }), svg("circle", { r: 24, class: "ring" }),
        svg("text", { class: "name", x: 28, y: -2 }), svg("text", { class: "small", x: 28, y: 14 }));
      return a;
    });
    const load = s.load === null ? "load unknown" : `load ${percent(s.load)}`;
    const state = s.traffic || (s.status === "alive" ? "" : s.status);
    set(a, {
      transform: `translate(${Math.round(at.x)} ${Math.round(at.y)})`, "data-grade": grade(s), "data-status": s.status,
      "aria-label": `Site ${s.name}, ${s.status}${s.traffic ? ", " + s.traffic : ""}, ${load}, ${rate(s.served)} requests/s served`,
    });
    set(a.children[0], { class: `dot ${grade(s)}` });
    set(a.children[1], { "stroke-opacity": s.traffic ? 1 : 0 });
    set(a.children[2], { "text-anchor": left ? "end" : "start", x: left ? -28 : 28 });
    set(a.children[3], { "text-anchor": left ? "end" : "start", x: left ? -28 : 28 });
    say(a.children[2], s.name + (state ? ` · ${state}` : ""));
    const age = s.ageMs === null ? "" : ` · ${s.ageMs ? span(s.ageMs) + (phone.matches ? "" : " old") : "now"}`;
    say(a.children[3], s.known ? `${phone.matches ? s.load === null ? "?" : percent(s.load) : load} · ${rate(s.served)}/s${age}` : "nothing is known");
  }
}
