// The page: asks the controller once a second, shows one view by the address after #.

import { BigMap } from "./bigmap.js";
import { chainPage, chainsPage } from "./chains.js";
import { trafficPage } from "./graph.js";
import { $, el, table } from "./html.js";
import { Door, Refusal } from "./login.js";
import { Map_ } from "./map.js";
import { flowsOf, flowsThen, grade, percent, rate, sitesOf, sitesThen, span, waysOf, waysThen } from "./model.js";
import { askPin } from "./pin.js";
import { TimeBar } from "./time.js";

/** @import {Status, Weights, Objects, Site, Checked, TrafficResult, Traffic, Audit, Plan} from "./types.js" */

const EVERY_MS = 1000, CHECK_MS = 5000;

/** What was last said by the controller. */
const seen = {
  /** @type {Status|null} */ status: null,
  /** @type {Weights} */ weights: { rows: [] },
  /** @type {Objects} */ places: { objects: [] },
  /** @type {Objects} */ chains: { objects: [] },
  /** @type {Site[]} */ sites: [],
  /** @type {Traffic|null} */ traffic: null,
  /** @type {Audit|null} */ audit: null,
  at: 0,
};

/**
 * @template T
 * @param {string} path
 * @param {unknown} [body]
 * @param {string} [method]
 * @returns {Promise<T>}
 */
async function ask(path, body, method = body === undefined ? "GET" : "POST") {
  const options = body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, { ...options, method, cache: "no-store" });
  const said = await answer.json();
  if (answer.status === 401 && method !== "POST") door.open();
  if (!answer.ok && answer.status !== 422) throw new Refusal(answer.status, said.error ?? answer.statusText);
  return said;
}

async function look() {
  if (door.dialog.open) return;
  try {
    await door.look();
    const [status, weights, places, chains] = await Promise.all([
      /** @type {Promise<Status>} */ (ask("/api/v1/status")),
      /** @type {Promise<Weights>} */ (ask("/api/v1/weights")),
      /** @type {Promise<Objects>} */ (ask("/api/v1/objects?kind=Site")),
      /** @type {Promise<Objects>} */ (ask("/api/v1/objects?kind=ServiceChain")),
    ]);
    if (viewed() === "audit") seen.audit = await ask("/api/v1/audit");
    if (viewed() === "traffic") seen.traffic = await ask("/traffic");
    await time.look();
    Object.assign(seen, { status, weights, places, chains, at: Date.now(), sites: sitesOf(status, places) });
    trouble("");
  } catch (e) {
    if (door.dialog.open) return trouble("");
    const age = seen.at ? ` What is shown is ${span(Date.now() - seen.at)} old.` : "";
    trouble(`The controller does not answer: ${e instanceof Error ? e.message : e}.${age}`);
  }
  show();
}

/** @param {string} text */
function trouble(text) {
  const t = $("trouble");
  if (t.textContent !== text) t.textContent = text;
  t.hidden = text === "";
}

/** @param {string} text */
const said = (text) => { $("said").textContent = text; };

const map = new Map_(), bigMap = new BigMap();
/** Up to how many sites the map is made of elements, each a link with its state. */
const MOST_ELEMENTS = 100;
const mapView = el("section", { class: "card", "aria-labelledby": "map-title" },
  el("h2", { id: "map-title" }, "Map"), map.element,
  el("ul", { class: "legend" },
    el("li", {}, el("span", { class: "key good" }), "load under 70 %"), el("li", {}, el("span", { class: "key busy" }), "under 95 %"),
    el("li", {}, el("span", { class: "key full" }), "full"), el("li", {}, el("span", { class: "key" }), "not known"),
    el("li", {}, el("span", { class: "key flow" }), "requests served for another site"), el("li", {}, el("span", { class: "key cut" }), "cut way")));

let shown = "";

/** The first word of the address after #. */
const viewed = () => (location.hash.replace(/^#\/?/, "") || "map").split("/")[0];

function show() {
  const route = location.hash.replace(/^#\/?/, "") || "map";
  const [view, name] = route.split("/").map(decodeURIComponent);
  for (const a of document.querySelectorAll("nav a")) {
    const here = a.getAttribute("href") === `#/${view}` || ["site", "chain"].includes(view) && a.getAttribute("href") === `#/${view}s`;
    if (here) a.setAttribute("aria-current", "page"); else a.removeAttribute("aria-current");
  }
  const s = seen.status;
  if (!s) return;
  const link = s.link.role === "alone" ? "alone" : s.link.connected ? "linked to the others" : `cut off since ${new Date(s.link.since).toLocaleTimeString()}`;
  const where = `site ${s.self.site} (${s.self.role}), ${link}`;
  if ($("where").textContent !== where) $("where").textContent = where;
  if (door.dialog.open) return;
  const main = $("main");
  const moved = shown !== route;
  shown = route;
  time.show(view === "map" || view === "sites");
  if (view === "map") {
    const then = time.moment;
    const sites = then ? sitesThen(then, seen.places) : seen.sites;
    const drawn = sites.length > MOST_ELEMENTS ? bigMap : map, other = drawn === map ? bigMap : map;
    if (mapView.contains(other.element)) other.element.replaceWith(drawn.element);
    if (main.firstChild !== mapView) main.replaceChildren(mapView);
    drawn.draw(sites, then ? flowsThen(then) : flowsOf(sites), then ? waysThen(then) : waysOf(seen.weights, sites));
  } else if (view === "site" && name) replace(main, sitePage(name));
  else if (view === "traffic") replace(main, seen.traffic ? trafficPage(seen.traffic) : el("section", { class: "card" }, el("h2", {}, "Traffic"), el("p", { class: "soft" }, "Asking the controller…")));
  else if (view === "audit") replace(main, auditPage());
  else if (view === "chains") replace(main, chainsPage(seen.chains, s));
  else if (view === "chain" && name) replace(main, chainPage(name, seen.chains, s));
  else if (view === "check") { if (moved || Date.now() - checkedAt > CHECK_MS) void checkPage(main); }
  else replace(main, sitesPage());
  if (moved) {
    document.title = `${name ?? view} · Meridian`;
    if (document.activeElement === document.body) main.focus({ preventScroll: true });
  }
}

/**
 * Puts a new view in place and gives focus back to what had it, by id or address.
 * @param {HTMLElement} main
 * @param {HTMLElement} view
 */
function replace(main, view) {
  const had = document.activeElement;
  const key = main.contains(had) ? had?.id || had?.getAttribute("href") || had?.getAttribute("aria-label") : "";
  const scrolled = [...main.querySelectorAll(".scroll")].map((e) => e.scrollLeft);
  main.replaceChildren(view);
  main.querySelectorAll(".scroll").forEach((e, i) => { e.scrollLeft = scrolled[i] ?? 0; });
  if (!key) return;
  for (const e of main.querySelectorAll("a, button, .scroll")) {
    if (e.id === key || e.getAttribute("href") === key || e.getAttribute("aria-label") === key) /** @type {HTMLElement} */ (e).focus({ preventScroll: true });
  }
}

/** @param {Site} s @returns {[string, string]} */
function statusCell(s) {
  const text = s.status + (s.traffic ? `, ${s.traffic}` : "");
  return [text, s.status === "alive" ? s.traffic ? "warn" : "fine" : "bad"];
}

/** @param {Site} s @returns {[string, string]} */
const loadCell = (s) => [s.load === null ? "not known" : percent(s.load), { good: "fine", busy: "warn", full: "bad", none: "soft" }[grade(s)]];

function sitesPage() {
  const rows = (time.moment ? sitesThen(time.moment, seen.places) : seen.sites).map((s) => [
    el("a", { href: `#/site/${encodeURIComponent(s.name)}` }, s.name), statusCell(s), s.ageMs === null ? "–" : span(s.ageMs), loadCell(s),
    rate(s.demand), rate(s.served), String(s.inFlight), s.said?.generation ? String(s.said.generation.counter) : "–",
  ]);
  return el("section", { class: "card" }, el("h2", {}, "Sites"),
    table(time.moment ? "Sites as this controller saw them" : "Sites as this controller sees them", ["Site", "Status", "Age", "Load", "Demand/s", "Served/s", "In flight", "Generation"], rows));
}

/** @param {string} name */
function sitePage(name) {
  const s = seen.sites.find((x) => x.name === name);
  const page = el("section", { class: "card" }, el("h2", {}, `Site ${name}`));
  if (!s) {
    page.append(el("p", { class: "bad" }, "There is no such site."));
    return page;
  }
  const [state, look] = statusCell(s);
  page.append(el("p", {}, el("span", { class: look }, state), s.reason ? ` (${s.reason})` : "",
    s.rttMs ? ` · round trip ${span(s.rttMs)}` : "", s.ageMs ? ` · heard ${span(s.ageMs)} ago` : ""));
  if (s.silence) page.append(el("p", { class: "bad" }, `Its controller does not answer: ${s.silence}`));
  const button = (/** @type {string} */ id, /** @type {string} */ text, /** @type {string} */ traffic, /** @type {boolean} */ off) => {
    const b = /** @type {HTMLButtonElement} */ (el("button", { id, type: "button" }, text));
    b.disabled = off || !door.may("operate");
    b.addEventListener("click", () => void change(s, traffic));
    return b;
  };
  page.append(el("div", { class: "buttons" },
    button("drain", "Drain…", "drained", s.traffic === "drained"), button("cordon", "Cordon…", "cordoned", s.traffic === "cordoned"),
    button("undrain", "Undrain…", "accept", s.traffic === "")));
  page.append(table("Services and their load here", ["Service", "Load", "Slots", "Service time", "In flight", "Served/s", "Of other sites"], s.services.map((v) => [
    v.service, v.slots ? percent(v.arrivals * v.serviceTimeMs / 1000 / v.slots) : "not known", rate(v.slots), `${v.serviceTimeMs.toFixed(1)} ms`,
    String(v.inFlight), rate(v.arrivals), Object.entries(v.from ?? {}).filter(([, r]) => r >= 0.05).map(([n, r]) => `${n} ${rate(r)}/s`).join(", ") || "none",
  ])));
  const row = seen.weights.rows.find((r) => r.site === name);
  if (!row) page.append(el("p", { class: "bad" }, `Its plan is not known: ${seen.weights.missing?.[name] ?? "no answer"}`));
  for (const plan of row?.services ?? []) page.append(planTable(name, plan));
  if (s.said) {
    page.append(table("Proxies", ["Proxy", "Status", "Heard", "Generation", "Problems"], (s.said.nodes ?? []).map((n) => [
      n.node, [n.status, n.status === "alive" ? "fine" : "bad"], span(n.ageMs), `${n.applied.counter}${n.behind ? " (behind)" : ""}`,
      [[n.refusedWhy, ...(n.problems ?? [])].filter(Boolean).join("; ") || "none", n.refusedWhy || n.problems?.length ? "bad" : ""],
    ])));
    for (const l of s.said.links ?? []) page.append(el("p", { class: "bad" }, `${l.node} to ${l.site}: ${l.probe || l.suspect || l.fault}`));
  }
  return page;
}

/**
 * @param {string} name
 * @param {Plan} plan
 */
function planTable(name, plan) {
  const limit = (/** @type {number} */ n) => n >= 1 << 20 ? "none" : String(n);
  const hand = [plan.drained && "drained", plan.pinned && "pinned by the operator"].filter(Boolean).join(", ");
  const why = plan.off || hand || `stays while fewer than ${limit(plan.homeLimit)} are in flight`;
  /** @type {(string|Node|[string, string])[][]} */
  const rows = [[`${name} (here)`, percent(plan.homeWeight), plan.homePriceMs ? `${plan.homePriceMs.toFixed(1)} ms` : "–", "–", "–", limit(plan.homeLimit), [why, "why"]]];
  for (const r of plan.remotes ?? []) {
    rows.push([r.site, percent(r.weight), r.excluded ? "–" : `${r.priceMs.toFixed(1)} ms`, span(r.rttMs), span(r.ageMs), r.excluded ? "–" : limit(r.limit),
      [r.excluded || (plan.pinned ? "as it is pinned" : r.weight > 0 ? "costs least for its share" : "others cost less"), r.excluded ? "why warn" : "why"]]);
  }
  const box = table(`Plan for ${plan.service}: where ${name}'s own requests go`, ["Site", "Share", "Price", "Round trip", "Age", "Limit", "Why"], rows);
  if (plan.off) return box;
  const action = (/** @type {string} */ kind, /** @type {string} */ text, /** @type {() => void} */ act) => {
    const b = /** @type {HTMLButtonElement} */ (el("button", { id: `${kind} ${plan.service}`, type: "button" }, text));
    b.disabled = !door.may("operate");
    b.addEventListener("click", act);
    return b;
  };
  const buttons = el("div", { class: "buttons" }, action("pin", `${plan.pinned ? "Change the pin" : "Pin"} of ${plan.service}…`, () => void pin(name, plan)));
  if (plan.pinned) buttons.append(action("unpin", `Unpin ${plan.service}`, () => void fix(name, plan, [])));
  return el("div", {}, box, buttons);
}

/**
 * @param {string} site
 * @param {Plan} plan
 */
async function pin(site, plan) {
  const to = await askPin(site, plan);
  if (!to) return said("Nothing was changed.");
  await fix(site, plan, to);
}

/**
 * Fixes where a site's requests for a service go, or with nothing frees it.
 * @param {string} site
 * @param {Plan} plan
 * @param {{site: string, weight: number}[]} to
 */
async function fix(site, plan, to) {
  try {
    /** @type {TrafficResult} */
    const r = await ask("/api/v1/pin", { service: plan.service, from: site, to });
    if (r.faults?.length) return said(`Refused: ${r.faults.map((f) => f.message).join("; ")}`);
    said(to.length ? `${plan.service} of ${site} is pinned.` : `${plan.service} of ${site} is not pinned any more.`);
  } catch (e) {
    said(`Not done: ${e instanceof Error ? e.message : e}`);
  }
  await look();
}

function auditPage() {
  const page = el("section", { class: "card" }, el("h2", {}, "Audit"));
  if (!seen.audit) page.append(el("p", { class: "soft" }, "Asking the controller…"));
  else if (seen.audit.changes.length === 0) page.append(el("p", { class: "soft" }, "Nothing was changed through this controller since it started."));
  else {
    page.append(table("What was asked of this controller, the last first", ["When", "Who", "From", "What", "Outcome"], seen.audit.changes.toReversed().map((a) => [
      new Date(a.at).toLocaleString(), a.who, a.from || "–", [a.what, "why"], [a.outcome, a.outcome === "done" ? "fine" : "warn"]])));
  }
  return page;
}

/** When a check was begun last, and what it found. */
let checkedAt = 0, lastFound = "";

/** @param {HTMLElement} main */
async function checkPage(main) {
  checkedAt = Date.now();
  const page = el("section", { class: "card" }, el("h2", {}, "Check"));
  if (!main.querySelector("#check-result")) main.replaceChildren(el("section", { class: "card" }, el("h2", {}, "Check"), el("p", { class: "soft" }, "Looking at every site…")));
  try {
    /** @type {Checked} */
    const r = await ask("/api/v1/check");
    if (shown !== "check") return;
    main.replaceChildren(page);
    page.id = "check-result";
    page.append(el("p", { class: r.findings.length ? "bad" : "fine" }, r.findings.length === 1 ? "1 finding" : `${r.findings.length} findings`));
    for (const f of r.findings) {
      page.append(el("h3", { class: f.severity === "error" ? "bad" : "warn" }, `${f.severity}: ${f.code}${f.site ? `, site ${f.site}` : ""}`),
        el("p", {}, f.what), el("p", { class: "soft" }, `Remedy: ${f.remedy}`));
    }
    page.append(el("h3", {}, "Looked at"), el("ul", {}, ...r.looked.map((t) => el("li", {}, t))));
    const found = r.findings.map((f) => f.what).join();
    if (found !== lastFound) said(`Check: ${r.findings.length === 1 ? "1 finding" : `${r.findings.length} findings`}`);
    lastFound = found;
  } catch (e) {
    if (shown !== "check") return;
    main.replaceChildren(page);
    page.append(el("p", { class: "bad" }, e instanceof Error ? e.message : String(e)));
  }
}

const words = { drained: "Drain", cordoned: "Cordon", accept: "Undrain" };
const meanings = {
  drained: "It takes no new request while another site can. What runs there ends there.",
  cordoned: "Other sites send it nothing new. It serves its own users.",
  accept: "It takes its own users' requests and other sites' again.",
};

/**
 * Asks for confirmation, then changes what a site takes.
 * @param {Site} s
 * @param {string} traffic
 */
async function change(s, traffic) {
  const kind = /** @type {keyof typeof words} */ (traffic);
  const dialog = /** @type {HTMLDialogElement} */ ($("confirm"));
  const reason = /** @type {HTMLInputElement} */ ($("confirm-reason"));
  $("confirm-title").textContent = `${words[kind]} site ${s.name}?`;
  $("confirm-text").textContent = meanings[kind];
  $("confirm-yes").textContent = words[kind];
  $("confirm-reason-label").hidden = traffic === "accept";
  reason.value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "yes") return said("Nothing was changed.");
  try {
    /** @type {TrafficResult} */
    const r = await ask("/api/v1/site-traffic", { site: s.name, traffic, reason: traffic === "accept" ? "" : reason.value });
    if (r.faults?.length) return said(`Refused: ${r.faults.map((f) => f.message).join("; ")}`);
    const stays = r.stays?.length ? ` Stays there: ${r.stays.join("; ")}` : "";
    said(`Site ${s.name} is ${traffic === "accept" ? "in service" : traffic}.${stays}`);
  } catch (e) {
    said(`Not done: ${e instanceof Error ? e.message : e}`);
  }
  await look();
}

const door = new Door(ask, () => void look());
const time = new TimeBar(ask, show, said);

window.addEventListener("hashchange", () => { show(); if (viewed() === "traffic" || viewed() === "audit") void look(); });
matchMedia("(max-width: 600px)").addEventListener("change", show);
async function run() {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}
void run();
