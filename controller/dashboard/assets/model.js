// What the controller says, put together for the views. No I/O and no document here.

/** @import {Status, Weights, Objects, Site, SiteSaid, ServiceLoad, Moment, Traffic, Workload, Rates} from "./types.js" */

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


/**
 * The sites as they were at a moment, at the places that they have now.
 * @param {Moment} moment
 * @param {Objects} places
 * @returns {Site[]}
 */
export function sitesThen(moment, places) {
  const served = moment.sites.map((m) => m.site);
  const sites = moment.sites.map((m) => {
    const point = places.objects.find((o) => o.key.name === m.site)?.object?.spec?.location?.coordinates;
    const [lon, lat] = Array.isArray(point) ? point : [null, null];
    let demand = m.servedPerS;
    for (const f of moment.flows) demand += (f.from === m.site ? f.perS : 0) - (f.to === m.site && served.includes(f.from) ? f.perS : 0);
    return {
      name: m.site, lon, lat, status: m.status, ageMs: null, traffic: m.traffic ?? "", reason: "", load: m.load ?? null, served: m.servedPerS,
      demand: Math.max(0, demand), inFlight: m.inFlight, services: [], said: null, silence: "", rttMs: 0, known: m.load !== undefined || m.servedPerS > 0,
    };
  });
  return sites.sort((a, b) => a.name.localeCompare(b.name));
}

/** @param {Moment} moment @returns {Flow[]} */
export const flowsThen = (moment) => moment.flows.map((f) => ({ from: f.from, to: f.to, rate: f.perS }));

/** @param {Moment} moment @returns {Way[]} */
export const waysThen = (moment) => (moment.cuts ?? []).map((c) => ({ a: c.from, b: c.to, cut: `${c.from} to ${c.to}: ${c.why}` }));

/** @typedef {{name: string, column: number, row: number, bytes: number}} Vertex */
/** @typedef {{from: string, to: string, bytes: number, requests: number, across: number}} Arc */
/** @typedef {{vertices: Vertex[], arcs: Arc[], left: number}} Graph */

/** @param {Workload} w */
export const workload = (w) => (w.cluster ? `${w.cluster}/` : "") + (w.namespace ? `${w.namespace}/` : "") + w.name;

/** @param {Rates|undefined} r */
const bytesOf = (r) => (r?.requestBytesPerS ?? 0) + (r?.responseBytesPerS ?? 0);

/**
 * Who asks whom: the arcs with most bytes first, and a place for each workload, callers
 * to the left of whom they ask as far as that can be.
 * @param {Traffic} traffic
 * @param {number} most arcs that are kept
 * @returns {Graph}
 */
export function graphOf(traffic, most) {
  const all = traffic.edges.map((e) => {
    const bytes = bytesOf(e.steady);
    return { from: workload(e.from), to: workload(e.to), bytes, requests: e.steady.requestsPerS, across: bytes > 0 ? Math.min(1, bytesOf(e.across) / bytes) : 0 };
  }).sort((a, b) => b.bytes - a.bytes || a.from.localeCompare(b.from) || a.to.localeCompare(b.to));
  const arcs = all.slice(0, most);
  /** @type {Map<string, Vertex>} */
  const vertices = new Map();
  for (const a of arcs) {
    for (const name of [a.from, a.to]) {
      const v = vertices.get(name) ?? { name, column: 0, row: 0, bytes: 0 };
      v.bytes += a.bytes;
      vertices.set(name, v);
    }
  }
  // A callee stands right of its callers. Who asks itself in a circle stays where the
  // rounds end: there are as many as there are workloads, at most.
  for (let round = 0, moved = true; moved && round < vertices.size; round++) {
    moved = false;
    for (const a of arcs) {
      const from = /** @type {Vertex} */ (vertices.get(a.from)), to = /** @type {Vertex} */ (vertices.get(a.to));
      if (a.from !== a.to && to.column <= from.column && from.column + 1 < Math.min(vertices.size, 6)) {
        to.column = from.column + 1;
        moved = true;
      }
    }
  }
  /** @type {Map<number, number>} */
  const rows = new Map();
  const placed = [...vertices.values()].sort((a, b) => b.bytes - a.bytes || a.name.localeCompare(b.name));
  for (const v of placed) {
    v.row = rows.get(v.column) ?? 0;
    rows.set(v.column, v.row + 1);
  }
  return { vertices: placed, arcs, left: all.length - arcs.length };
}

/** @param {number} n */
export function bytes(n) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (n < 1000) return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1000;
  }
  return `${rate(n)} TB`;
}

/**
 * A path of a chain, of all that agents of nodes tell.
 * @typedef {{chain: string, spi: number, reversed: boolean, broken: string, hops: HopSeen[]}} PathSeen
 * @typedef {{si: number, node: string, function: string, instance: string, end: boolean, counted: boolean, packets: number, drops: number,
 *   packetsPerS: number, mbps: number, dropsPerS: number, probeMs: number|null, echoMs: number|null, tookMs: number|null, down: string, silent: string}} HopSeen
 */

/**
 * Puts together what several nodes say of the same path: a hop's packets are those that
 * its own node counts, its drops those of all.
 * @param {Status} status
 * @returns {PathSeen[]}
 */
export function pathsOf(status) {
  /** @type {Map<string, PathSeen>} */
  const all = new Map();
  for (const site of [status.self, ...status.peers.flatMap((p) => p.said ?? [])]) {
    for (const n of site.nodes ?? []) {
      if (!n.chains) continue;
      const silent = n.status === "alive" ? "" : span(n.ageMs);
      for (const told of n.chains.hops ?? []) {
        const key = `${told.chain} ${told.spi}`;
        let p = all.get(key);
        if (!p) {
          p = { chain: told.chain, spi: told.spi, reversed: told.reversed ?? false, broken: "", hops: told.hops.map((h, i) => ({
            si: h.si, node: h.node, function: h.function ?? "", instance: h.instance ?? "", end: i === told.hops.length - 1, counted: false, packets: 0, drops: 0,
            packetsPerS: 0, mbps: 0, dropsPerS: 0, probeMs: null, echoMs: null, tookMs: null, down: "", silent: "",
          })) };
          all.set(key, p);
        }
        if (!silent && told.broken) p.broken = told.broken;
        for (const h of told.hops) {
          const seen = p.hops.find((x) => x.si === h.si);
          if (!seen) continue;
          const own = h.node === n.chains.node;
          if (own) seen.silent = silent;
          if (silent) continue; // what was is not what is
          if (h.instance && n.chains.down?.[h.instance]) seen.down = n.chains.down[h.instance];
          seen.probeMs = h.probeMs ?? seen.probeMs;
          seen.echoMs = h.echoMs ?? seen.echoMs;
          if (!h.counted) continue;
          seen.drops += h.counted.drops;
          seen.dropsPerS += h.counted.dropsPerS;
          if (own || !seen.counted) Object.assign(seen, { packets: h.counted.packets, packetsPerS: h.counted.packetsPerS, mbps: h.counted.mbps });
          seen.counted = true;
        }
      }
    }
  }
  for (const p of all.values()) {
    // Where TTL ends an echo, the hop answers before its function works on it: so the next
    // one's echo is that much longer.
    p.hops.forEach((h, i) => {
      const next = p.hops[i + 1];
      if (h.echoMs !== null && next && next.echoMs !== null) h.tookMs = Math.max(0, next.echoMs - h.echoMs);
    });
  }
  return [...all.values()].sort((a, b) => a.chain < b.chain ? -1 : a.chain > b.chain ? 1 : (a.spi & 0x7fffff) - (b.spi & 0x7fffff) || Number(a.reversed) - Number(b.reversed));
}

/**
 * How many paths some agent does not tell of, because it has too many.
 * @param {Status} status
 */
export const pathsLeft = (status) => Math.max(0, ...[status.self, ...status.peers.flatMap((p) => p.said ?? [])].flatMap((s) => (s.nodes ?? []).map((n) => n.chains?.left ?? 0)));
