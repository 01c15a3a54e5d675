/** Who is not known to the service says so here, and what was asked goes on as if nothing had been. */

import { dialog, field, h } from "./dom.js";
import { words } from "./words.js";

/** @type {Promise<void> | null} */
let open = null;

/**
 * Asks for the token until the service knows it; however many need it, there is one field.
 * @returns {Promise<void>}
 */
export const login = () => (open ??= asked().finally(() => (open = null)));

function asked() {
  const token = h("input", { type: "password", name: "token", autocomplete: "current-password", required: true });
  const wrong = h("p", { class: "wrong", role: "alert" });
  const form = h(
    "form",
    { class: "login" },
    h("p", { class: "hint" }, words.login.lead),
    field(words.login.token, token),
    wrong,
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, words.login.enter)),
  );
  const shown = dialog(words.login.heading, [form]);
  return new Promise((/** @type {(known: void) => void} */ known) => {
    shown.addEventListener("close", () => known());
    form.addEventListener("submit", async (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      wrong.textContent = await refusal(token.value);
      if (wrong.textContent) token.select();
      else shown.close();
    });
  });
}

/** @param {string} token @returns {Promise<string>} what is said against it */
async function refusal(token) {
  try {
    const answer = await fetch("/login", { method: "POST", body: new URLSearchParams({ token }), credentials: "same-origin" });
    return answer.ok ? "" : (await answer.json()).error;
  } catch {
    return words.errors.unreachable;
  }
}
