// What the mesh looked like before now: a slider over the moments that the controller
// remembers. Its right end is now.

import { $ } from "./html.js";
import { span } from "./model.js";

/** @import {Moment, Past} from "./types.js" */

/** How often the controller is asked which moments there are. */
const LOOK_MS = 10000;

/** The bar with the slider; one there is. */
export class TimeBar {
  /**
   * @param {<T>(path: string) => Promise<T>} ask
   * @param {() => void} changed is called when another moment is to be shown
   * @param {(text: string) => void} said tells what went wrong
   */
  constructor(ask, changed, said) {
    this.ask = ask;
    this.changed = changed;
    this.said = said;
    /** @type {string[]} */
    this.times = [];
    /** @type {Moment|null} */
    this.moment = null;
    this.wanted = "";
    this.lookedAt = 0;
    this.slider = /** @type {HTMLInputElement} */ ($("when"));
    this.slider.addEventListener("input", () => void this.go(this.times[Number(this.slider.value)] ?? ""));
    $("back-to-now").addEventListener("click", () => { this.slider.focus(); void this.go(""); });
  }

  /** Asks which moments there are, when that is due. */
  async look() {
    if (Date.now() - this.lookedAt < LOOK_MS) return;
    this.lookedAt = Date.now();
    /** @type {Past} */
    const past = await this.ask("/api/v1/past");
    this.times = past.times ?? [];
    this.draw();
  }

  /**
   * Goes to a moment, or with nothing to now.
   * @param {string} at
   */
  async go(at) {
    this.wanted = at;
    if (at === "") this.moment = null;
    else {
      try {
        /** @type {Moment} */
        const moment = await this.ask(`/api/v1/past?at=${encodeURIComponent(at)}`);
        if (this.wanted !== at) return; // moved on while the answer came
        this.moment = moment;
      } catch (e) {
        this.said(`That moment cannot be shown: ${e instanceof Error ? e.message : e}`);
        this.wanted = "";
        this.moment = null;
      }
    }
    this.draw();
    this.changed();
  }

  draw() {
    const last = this.times.length;
    this.slider.max = String(last);
    let at = last;
    if (this.wanted !== "") {
      const wanted = Date.parse(this.wanted);
      at = Math.max(0, this.times.findLastIndex((t) => Date.parse(t) <= wanted));
    }
    if (this.slider.value !== String(at)) this.slider.value = String(at);
    let text = "now";
    if (this.moment) text = `${new Date(this.moment.at).toLocaleTimeString()}, ${span(Date.now() - Date.parse(this.moment.at))} ago`;
    if ($("when-text").textContent !== text) $("when-text").textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
    $("time").classList.toggle("past", this.moment !== null);
    /** @type {HTMLButtonElement} */ ($("back-to-now")).disabled = this.moment === null;
  }

  /**
   * The bar is there where a view has a past, and once there is one.
   * @param {boolean} here
   */
  show(here) {
    $("time").hidden = !here || this.times.length === 0;
    if (this.moment) this.draw(); // its age grows
  }
}
