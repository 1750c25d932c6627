// Who is using the page: on the controller's machine anybody, elsewhere a user who logs in.

import { $ } from "./html.js";

/** @import {Caller} from "./types.js" */

/** An answer of the controller that is no success. */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const ranks = ["view", "operate", "admin"];

/** The user, and the dialog that asks for one. */
export class Door {
  /**
   * @param {<T>(path: string, body?: unknown, method?: string) => Promise<T>} ask
   * @param {() => void} changed is called when somebody logged in or out
   */
  constructor(ask, changed) {
    this.ask = ask;
    this.changed = changed;
    /** @type {Caller|null} */
    this.caller = null;
    this.dialog = /** @type {HTMLDialogElement} */ ($("login"));
    this.dialog.addEventListener("cancel", (e) => e.preventDefault()); // there is nothing behind it
    $("login-form").addEventListener("submit", (e) => {
      e.preventDefault();
      void this.enter();
    });
    $("logout").addEventListener("click", () => void this.leave());
  }

  /** Finds out who is here. */
  async look() {
    if (this.caller) return;
    this.is(/** @type {Caller} */ (await this.ask("/api/v1/login")));
  }

  /** @param {Caller|null} caller */
  is(caller) {
    this.caller = caller;
    $("who").hidden = !caller?.name;
    $("who-name").textContent = caller?.name ? `${caller.name} may ${caller.role}` : "";
  }

  /**
   * Whether who is here may do what needs a role.
   * @param {"operate"|"admin"} role
   */
  may(role) { return ranks.indexOf(this.caller?.role ?? "") >= ranks.indexOf(role); }

  /** Asks who is here, because the controller does not know. */
  open() {
    this.is(null);
    if (this.dialog.open) return;
    $("main").replaceChildren();
    this.dialog.showModal();
  }

  async enter() {
    const name = /** @type {HTMLInputElement} */ ($("login-name")), password = /** @type {HTMLInputElement} */ ($("login-password"));
    const yes = /** @type {HTMLButtonElement} */ ($("login-yes"));
    yes.disabled = true;
    $("login-fault").textContent = "";
    try {
      this.is(/** @type {Caller} */ (await this.ask("/api/v1/login", { name: name.value, password: password.value })));
      this.dialog.close();
      this.changed();
    } catch (e) {
      $("login-fault").textContent = e instanceof Error ? e.message : String(e);
    }
    password.value = "";
    yes.disabled = false;
    if (this.dialog.open) password.focus();
  }

  async leave() {
    await this.ask("/api/v1/login", undefined, "DELETE");
    this.open();
  }
}
