// What the controller says, put together for the views. No I/O and no document here.

/** @import {Status, Weights, Objects, Site, SiteSaid, ServiceLoad} from "./types.js" */

/**
 * One entry for each site that is known of, with its place where it has one.
 * @param {Status} status
 * @param {Objects} places the Site objects
 * @returns {Site[]}
 */
export function sitesOf(status, places) {
  /** @type {Map<string, Site>} */
  const sites = new Map();
  const entry = (/** @type {string} */ name) => {
    let s = sites.get(name);
    if (!s) {
      s = {
        name, lon: null, lat: null, status: "unknown", ageMs: null, traffic: "", reason: "", load: null, served: 0, demand: 0,
        inFlight: 0, services: [], said: null, silence: "", rttMs: 0, known: false,
      };
      sites.set(name, s);
    }
    return s;
  };
  for (const o of places.objects) {
    const point = o.object?.spec?.location?.coordinates;
    if (Array.isArray(point)) {
      const s = entry(o.key.name);
      [s.lon, s.lat] = point;
    }
  }
  const self = entry(status.self.site);
  self.status = "alive";
  self.ageMs = 0;
  fill(self, status.self, status.self.services ?? []);
  self.traffic = status.self.traffic ?? "";
  self.reason = status.self.trafficReason ?? "";
  for (const p of status.peers) {
    const s = entry(p.site);
    s.status = p.status;
    s.ageMs = p.ageMs ?? null;
    s.traffic = p.traffic ?? "";
    s.reason = p.trafficReason ?? "";
    s.silence = p.silence ?? "";
    s.rttMs = p.rttMs;
    fill(s, p.said ?? null, p.said?.services ?? p.known ?? []);
  }
  return [...sites.values()].sort((a, b) => a.name.localeCompare(b.name));
}

/**
 * @param {Site} s
 * @param {SiteSaid|null} said
 * @param {ServiceLoad[]} services
 */
function fill(s, said, services) {
  s.said = said;
  s.services = services;
  s.known = said !== null || services.length > 0;
  let busy = 0;
  let slots = 0;
  for (const v of services) {
    busy += v.arrivals * v.serviceTimeMs / 1000;
    slots += v.slots;
    s.served += v.arrivals;
    s.demand += v.demand ?? 0;
    s.inFlight += v.inFlight;
  }
  s.load = slots > 0 ? busy / slots : null;
}

/**
 * How a load is called; a colour never says it alone.
 * @param {Site} s
 * @returns {"good"|"busy"|"full"|"none"}
 */
export function grade(s) {
  if (s.load === null || s.status === "unknown" || s.status === "dead") return "none";
  if (s.load < 0.7) return "good";
  return s.load < 0.95 ? "busy" : "full";
}

/** @typedef {{from: string, to: string, rate: number}} Flow */

/**
 * The requests per second that each site serves for another.
 * @param {Site[]} sites
 * @returns {Flow[]}
 */
export function flowsOf(sites) {
  /** @type {Flow[]} */
  const flows = [];
  for (const to of sites) {
    /** @type {Map<string, number>} */
    const rates = new Map();
    for (const v of to.services) {
      for (const [from, rate] of Object.entries(v.from ?? {})) rates.set(from, (rates.get(from) ?? 0) + rate);
    }
    for (const [from, rate] of rates) {
      if (rate >= 0.05) flows.push({ from, to: to.name, rate });
    }
  }
  return flows;
}

/** @typedef {{a: string, b: string, cut: string}} Way */

/**
 * The ways between sites that somebody plans with, and why one is cut, in words.
 * Who is out of service by the operator is not cut.
 * @param {Weights} weights
 * @param {Site[]} sites
 * @returns {Way[]}
 */
export function waysOf(weights, sites) {
  /** @type {Map<string, Way>} */
  const ways = new Map();
  const way = (/** @type {string} */ x, /** @type {string} */ y) => {
    const [a, b] = x < y ? [x, y] : [y, x];
    const key = a + " " + b;
    let w = ways.get(key);
    if (!w) ways.set(key, w = { a, b, cut: "" });
    return w;
  };
  for (const row of weights.rows) {
    for (const plan of row.services ?? []) {
      for (const r of plan.remotes ?? []) {
        const w = way(row.site, r.site);
        if (r.excluded && !r.excluded.endsWith("by its operator") && r.excluded !== "sharing is off" && !r.excluded.startsWith("further away")) {
          w.cut ||= `${row.site} to ${r.site}: ${r.excluded}`;
        }
      }
    }
  }
  for (const s of sites) {
    for (const l of s.said?.links ?? []) {
      if (l.fault) way(s.name, l.site).cut ||= `${s.name} to ${l.site}: ${l.probe ?? l.fault}`;
    }
  }
  return [...ways.values()];
}

/**
 * A time span for people.
 * @param {number|null|undefined} ms
 */
export function span(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60000)} min`;
}

/** @param {number} n */
export const rate = (n) => n < 10 ? n.toFixed(1) : String(Math.round(n));

/** @param {number} part */
export const percent = (part) => `${(100 * part).toFixed(part < 0.1 && part > 0 ? 1 : 0)} %`;
