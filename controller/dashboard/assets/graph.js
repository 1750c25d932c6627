// Who asks whom: the graph of services, and which pairs talk most across sites.

import { el, set, svg, table } from "./html.js";
import { bytes, graphOf, percent, rate, workload } from "./model.js";

/** @import {Arc, Graph} from "./model.js" */
/** @import {Traffic} from "./types.js" */

const MOST_DRAWN = 60, MOST_LISTED = 200, MOST_ADVISED = 5;
const BOX = { w: 170, h: 34, gapX: 90, gapY: 22 };

/** @param {Graph} g */
function drawing(g) {
  const columns = Math.max(...g.vertices.map((v) => v.column)) + 1, rows = Math.max(...g.vertices.map((v) => v.row)) + 1;
  const w = columns * (BOX.w + BOX.gapX), h = rows * (BOX.h + BOX.gapY) + BOX.gapY;
  const e = svg("svg", { class: "graph", viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": `${g.vertices.length} workloads and who asks whom; the table below says the same` });
  e.style.maxWidth = `${1.3 * w}px`; // few boxes are no larger than many
  const at = new Map(g.vertices.map((v) => [v.name, { x: v.column * (BOX.w + BOX.gapX) + 8, y: v.row * (BOX.h + BOX.gapY) + BOX.gapY }]));
  for (const a of g.arcs) e.append(arc(a, /** @type {Point} */ (at.get(a.from)), /** @type {Point} */ (at.get(a.to))));
  for (const v of g.vertices) {
    const p = /** @type {Point} */ (at.get(v.name));
    const box = svg("g", { "data-workload": v.name, transform: `translate(${p.x} ${p.y})` });
    const label = svg("text", { x: 10, y: 22 });
    label.textContent = v.name.length > 22 ? `${v.name.slice(0, 21)}…` : v.name;
    const title = svg("title");
    title.textContent = v.name;
    box.append(title, svg("rect", { width: BOX.w, height: BOX.h, rx: 8 }), label);
    e.append(box);
  }
  return e;
}

/** @typedef {{x: number, y: number}} Point */

/**
 * @param {Arc} a
 * @param {Point} from
 * @param {Point} to
 */
function arc(a, from, to) {
  const g = svg("g", { "data-arc": `${a.from} ${a.to}`, "data-across": a.across.toFixed(3) });
  const title = svg("title");
  title.textContent = `${a.from} asks ${a.to}: ${rate(a.requests)} requests/s, ${bytes(a.bytes)}/s, ${percent(a.across)} of it at other sites`;
  const kind = a.across >= 0.05 ? " across" : "";
  const forth = to.x > from.x;
  const x1 = forth ? from.x + BOX.w : from.x, y1 = from.y + BOX.h / 2;
  const x2 = forth ? to.x : to.x + BOX.w, y2 = to.y + BOX.h / 2;
  const side = forth ? 1 : -1, reach = Math.max(40, Math.abs(x2 - x1) / 2), tip = 9;
  const line = svg("path", { class: "arc" + kind, d: `M${x1} ${y1}C${x1 + side * reach} ${y1} ${x2 - side * reach} ${y2} ${x2 - side * tip} ${y2}` });
  set(line, { "stroke-width": Math.min(8, 1.2 + 0.9 * Math.log10(1 + a.bytes / 100)) });
  g.append(title, line, svg("path", { class: "tip" + kind, d: `M${x2} ${y2}l${-side * tip} 5v-10Z` }));
  return g;
}

/** @param {Traffic} traffic */
export function trafficPage(traffic) {
  const page = el("section", { class: "card" }, el("h2", {}, "Traffic"));
  if (traffic.silent?.length) page.append(el("p", { class: "warn" }, `Not told of in the last ten minutes: ${traffic.silent.join(", ")}. What these sites' users ask is not in it.`));
  const g = graphOf(traffic, MOST_DRAWN);
  if (g.arcs.length === 0) {
    page.append(el("p", { class: "soft" }, "No traffic was seen. Proxies tell every few seconds what flowed through them."));
    return page;
  }
  page.append(drawing(g), el("ul", { class: "legend" },
    el("li", {}, el("span", { class: "key flow" }), "asks, the wider the more bytes"),
    el("li", {}, el("span", { class: "key across" }), "5 % of it or more at other sites")));
  if (g.left > 0) page.append(el("p", { class: "soft" }, `${g.left} more pairs are not drawn.`));
  // Who is no workload of the mesh cannot be placed.
  const across = traffic.edges.filter((e) => e.from.namespace && e.to.namespace).map((e) => ({ e, bytes: (e.across?.requestBytesPerS ?? 0) + (e.across?.responseBytesPerS ?? 0) }))
    .filter((x) => x.bytes > 0).sort((a, b) => b.bytes - a.bytes).slice(0, MOST_ADVISED);
  page.append(el("h3", {}, "Talks most across sites"));
  if (across.length === 0) page.append(el("p", { class: "fine" }, "No workload's request was served at another site than its caller's."));
  else {
    page.append(table("Pairs that are worth placing together, by the mean of half an hour", ["From", "Asks", "Across sites", "Requests/s across"],
      across.map(({ e, bytes: b }) => [workload(e.from), workload(e.to), `${bytes(b)}/s`, rate(e.across?.requestsPerS ?? 0)])),
    el("p", { class: "soft" }, "Which pods to move where, and what it saves: ", el("code", {}, "meridian placement advise --inventory …")));
  }
  page.append(table("All pairs, by bytes", ["From", "Asks", "Requests/s", "Bytes/s", "Of it across sites"],
    graphOf(traffic, MOST_LISTED).arcs.map((a) => [a.from, a.to, rate(a.requests), bytes(a.bytes), [percent(a.across), a.across >= 0.05 ? "warn" : ""]])));
  return page;
}
