// Elements of the page: text, tables, drawings. What is there already and the same is
// left alone, so that focus and selection stay.

export const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

/**
 * An element with text and children.
 * @param {string} name
 * @param {Record<string, string>} [attributes]
 * @param {...(Node|string)} children
 */
export function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}

/**
 * A table; a cell is text, a node, or text with a class.
 * @param {string} caption
 * @param {string[]} head
 * @param {(string|Node|[string, string])[][]} rows
 */
export function table(caption, head, rows) {
  const body = el("tbody");
  for (const r of rows) {
    const tr = el("tr");
    r.forEach((c, i) => {
      const cell = el(i === 0 ? "th" : "td", i === 0 ? { scope: "row" } : {});
      if (Array.isArray(c)) {
        cell.className = c[1];
        cell.append(c[0]);
      } else cell.append(c);
      tr.append(cell);
    });
    body.append(tr);
  }
  const h = el("tr");
  for (const t of head) h.append(el("th", { scope: "col" }, t));
  const box = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption });
  box.append(el("table", {}, el("caption", {}, caption), el("thead", {}, h), body));
  return box;
}

const NS = "http://www.w3.org/2000/svg";

/**
 * @param {string} name
 * @param {Record<string, string|number>} attributes
 */
export function svg(name, attributes = {}) {
  const e = document.createElementNS(NS, name);
  set(e, attributes);
  return e;
}

/**
 * @param {Element} e
 * @param {Record<string, string|number>} attributes
 */
export function set(e, attributes) {
  for (const [k, v] of Object.entries(attributes)) {
    const text = typeof v === "number" ? String(Math.round(v * 10) / 10) : v;
    if (e.getAttribute(k) !== text) e.setAttribute(k, text);
  }
}

/**
 * @param {Element} e
 * @param {string} text
 */
export function say(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

/** Keeps elements by key between two drawings of one layer. */
export class Layer {
  /** @param {SVGElement} parent */
  constructor(parent) {
    this.g = /** @type {SVGElement} */ (parent.appendChild(svg("g")));
    /** @type {Map<string, SVGElement>} */
    this.have = new Map();
    /** @type {Set<string>} */
    this.used = new Set();
  }
  /**
   * @param {string} key
   * @param {() => SVGElement} make
   */
  get(key, make) {
    this.used.add(key);
    let e = this.have.get(key);
    if (!e) {
      e = make();
      this.have.set(key, e);
      this.g.appendChild(e);
    }
    return e;
  }
  sweep() {
    for (const [key, e] of this.have) {
      if (!this.used.has(key)) {
        e.remove();
        this.have.delete(key);
      }
    }
    this.used.clear();
  }
}
