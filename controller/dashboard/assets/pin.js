// Fixing by hand where a site's requests for a service go.

import { $, el } from "./html.js";
import { percent } from "./model.js";

/** @import {Plan} from "./types.js" */

/**
 * Asks which share each site shall have; null when nothing shall be done.
 * @param {string} site whose own users' requests are meant
 * @param {Plan} plan
 * @returns {Promise<{site: string, weight: number}[]|null>}
 */
export async function askPin(site, plan) {
  const dialog = /** @type {HTMLDialogElement} */ ($("pin"));
  $("pin-title").textContent = `Pin ${plan.service} of ${site}?`;
  $("pin-text").textContent = `What part of the requests of ${site}'s own users goes where, by weight. It holds request by request, whatever the load, until it is unpinned.`;
  $("pin-fault").textContent = "";
  const names = [site, ...(plan.remotes ?? []).map((r) => r.site)];
  const shares = [plan.homeWeight, ...(plan.remotes ?? []).map((r) => r.weight)];
  const inputs = names.map((name, i) => {
    const input = /** @type {HTMLInputElement} */ (el("input", { type: "number", min: "0", max: "1000000", step: "1", required: "", inputmode: "numeric" }));
    input.value = String(Math.round(100 * shares[i]));
    $("pin-shares").append(el("label", {}, el("span", {}, `${name}${i === 0 ? " (here)" : ""}, now ${percent(shares[i])}`), input));
    return input;
  });
  const chosen = () => names.map((name, i) => ({ site: name, weight: inputs[i].valueAsNumber })).filter((s) => s.weight > 0);
  const check = (/** @type {Event} */ e) => {
    if (chosen().length > 0) return;
    e.preventDefault();
    $("pin-fault").textContent = "Give one site at least a weight above 0.";
  };
  $("pin-yes").addEventListener("click", check);
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  $("pin-yes").removeEventListener("click", check);
  const out = dialog.returnValue === "yes" ? chosen() : null;
  $("pin-shares").replaceChildren();
  return out;
}
