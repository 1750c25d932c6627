// Chains of packets: a list of them, and each one's paths hop by hop, with what the
// agents of the nodes that it passes count and measure.

import { el, svg, table } from "./html.js";
import { pathsLeft, pathsOf, rate } from "./model.js";

/** @import {Objects, Status} from "./types.js" */
/** @import {HopSeen, PathSeen} from "./model.js" */

/** Below this many packets a second a hop drops nothing worth a colour. */
const QUIET = 0.05;

/** @param {number|null} ms */
const millis = (ms) => ms === null ? "–" : ms < 10 ? `${ms.toFixed(2)} ms` : `${ms.toFixed(0)} ms`;

/** @param {HopSeen} h */
const what = (h) => h.end ? "end of the path" : h.instance || "classified again";

/**
 * @param {Objects} chains
 * @param {Status} status
 */
export function chainsPage(chains, status) {
  const page = el("section", { class: "card" }, el("h2", {}, "Chains"));
  const paths = pathsOf(status);
  const rows = chains.objects.map((o) => {
    const name = `${o.key.namespace}/${o.key.name}`;
    const mine = paths.filter((p) => p.chain === name);
    const drops = mine.flatMap((p) => p.hops).reduce((n, h) => n + h.dropsPerS, 0);
    const packets = mine.reduce((n, p) => n + (p.hops[0]?.packetsPerS ?? 0), 0);
    /** @type {(string|Node|[string, string])[]} */
    const row = [
      el("a", { href: `#/chain/${encodeURIComponent(name)}` }, name), o.owner,
      (o.object?.spec?.functions ?? []).map((/** @type {any} */ f) => f.name ?? f.function ?? String(f)).join(" → ") || "–",
      mine.length ? String(mine.length) : "–", mine.length ? rate(packets) : "–",
      mine.length ? [rate(drops), drops > QUIET ? "warn" : ""] : "–",
      state(mine),
    ];
    return row;
  });
  page.append(rows.length
    ? table("Service function chains", ["Chain", "Owner", "Functions, in order", "Paths", "Packets/s", "Drops/s", "State"], rows)
    : el("p", { class: "soft" }, "No chain is configured."));
  const left = pathsLeft(status);
  if (left > 0) page.append(el("p", { class: "warn" }, `An agent has ${left} more paths than it tells of: meridian chain top --agent ADDRESS has all of a node.`));
  return page;
}

/** @param {PathSeen[]} paths @returns {[string, string]} */
function state(paths) {
  if (paths.length === 0) return ["no agent tells of it", "soft"];
  if (paths.some((p) => p.broken)) return ["broken", "bad"];
  const bad = paths.flatMap((p) => p.hops).find((h) => h.down);
  if (bad) return [`${bad.instance} is down`, "bad"];
  const old = paths.flatMap((p) => p.hops).find((h) => h.silent);
  return old ? [`${old.node} is silent`, "warn"] : ["ok", "fine"];
}

/**
 * @param {string} name namespace/name
 * @param {Objects} chains
 * @param {Status} status
 */
export function chainPage(name, chains, status) {
  const page = el("section", { class: "card" }, el("h2", {}, `Chain ${name}`), el("p", {}, el("a", { href: "#/chains" }, "All chains")));
  const object = chains.objects.find((o) => `${o.key.namespace}/${o.key.name}` === name);
  const paths = pathsOf(status).filter((p) => p.chain === name);
  if (!object && paths.length === 0) {
    page.append(el("p", { class: "bad" }, "There is no such chain."));
    return page;
  }
  if (paths.length === 0) {
    const ofRequests = !object?.object?.spec?.ingress?.node;
    page.append(el("p", { class: "soft" }, ofRequests
      ? "It is a chain of requests: its functions are in the proxies, whose metrics tell of them (meridian chain show NAME --proxy ADDRESS)."
      : "No agent of a node tells of a path of it: is chainagent connected to its site's controller on the nodes that the chain passes?"));
    return page;
  }
  for (const p of paths) page.append(onePath(p));
  page.append(el("p", { class: "soft" }, "Packets and drops are those that the nodes count, of the last seconds. Probe is the time in which an instance answers "
    + "its health probe. Echo is the round trip from the beginning of the path to the hop; through, how much longer that to the next one is: functions that know no NSH are stepped over, and take nothing."));
  return page;
}

/** @param {PathSeen} p */
function onePath(p) {
  const way = p.reversed ? "back" : "there";
  const box = el("div", { "data-path": String(p.spi), "data-way": way }, el("h3", {}, `Path ${p.spi}, ${way}`));
  if (p.broken) box.append(el("p", { class: "bad" }, `Broken: ${p.broken}`));
  box.append(drawing(p));
  box.append(table(`Hops of path ${p.spi}, ${way}`, ["Hop", "Function", "Node", "Packets/s", "Mbit/s", "Drops/s", "Dropped", "Probe", "Echo", "Through"], p.hops.map((h) => [
    el("span", { "data-hop": String(h.si) }, what(h), h.down ? el("span", { class: "bad" }, ` is down: ${h.down}`) : ""),
    h.function || "–", h.silent ? [`${h.node}, silent for ${h.silent}`, "warn"] : h.node,
    h.counted ? rate(h.packetsPerS) : "–", h.counted ? h.mbps.toFixed(2) : "–",
    h.counted ? [rate(h.dropsPerS), h.dropsPerS > QUIET ? "warn" : ""] : "–", h.counted ? String(h.drops) : "–",
    millis(h.probeMs), millis(h.echoMs), millis(h.tookMs),
  ])));
  return box;
}

const BOX = { w: 132, h: 54, gap: 34, pad: 6 };

/**
 * The hops from left to right; the table says the same.
 * @param {PathSeen} p
 */
function drawing(p) {
  const w = p.hops.length * (BOX.w + BOX.gap) - BOX.gap + 2 * BOX.pad, h = BOX.h + 2 * BOX.pad;
  const e = svg("svg", { class: "path", viewBox: `0 0 ${w} ${h}`, role: "img", width: w, height: h, "aria-label": `${p.hops.length} hops in a row; the table below says the same` });
  p.hops.forEach((hop, i) => {
    const x = BOX.pad + i * (BOX.w + BOX.gap), y = BOX.pad;
    const dropping = hop.dropsPerS > QUIET;
    if (i > 0) e.append(svg("path", { class: "way", d: `M${x - BOX.gap} ${y + BOX.h / 2}h${BOX.gap - 7}` }), svg("path", { class: "tip", d: `M${x} ${y + BOX.h / 2}l-9 5v-10Z` }));
    const g = svg("g", { class: hop.down ? "down" : dropping ? "drops" : hop.end ? "end" : "", transform: `translate(${x} ${y})` });
    const title = svg("title");
    title.textContent = `${what(hop)} on ${hop.node}`;
    const name = svg("text", { class: "name", x: 10, y: 22 }), where = svg("text", { class: "small", x: 10, y: 42 });
    name.textContent = short(what(hop), 17);
    where.textContent = short(hop.down ? "down" : dropping ? `drops ${rate(hop.dropsPerS)}/s` : `${hop.node}${hop.tookMs !== null ? `, ${millis(hop.tookMs)}` : ""}`, 20);
    g.append(title, svg("rect", { width: BOX.w, height: BOX.h, rx: 8 }), name, where);
    e.append(g);
  });
  // Wider than a phone: it is moved by hand or with the arrow keys.
  const box = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Drawing of path ${p.spi}` });
  box.append(e);
  return box;
}

/** @param {string} text @param {number} most */
const short = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;
