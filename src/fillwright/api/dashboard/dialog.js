// Dialogs over the page: what asks before it does something, and what is shown once.

import { h, problemBox } from "./dom.js";

/** Open a dialog. It ends when it is closed, and with the page below it. */
export function openDialog(signal, title, ...content) {
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, h("h2", { id: "dialog-title" }, title), content);
  dialog.addEventListener("close", () => dialog.remove());
  signal.addEventListener("abort", () => dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Say what will happen, and do it once that is confirmed. A refusal is said in the dialog, which then stays. */
export function confirmation(signal, title, told, action, work) {
  const said = h("div");
  const act = h("button", { type: "button", class: "danger" }, action);
  const dialog = openDialog(
    signal,
    title,
    told,
    said,
    h("div", { class: "row" }, act, h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Cancel")),
  );
  act.addEventListener("click", async () => {
    act.disabled = true;
    said.replaceChildren();
    try {
      await work();
      dialog.close();
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      act.disabled = false;
      said.replaceChildren(problemBox(error));
    }
  });
}

/** Show a secret, this once. It is nowhere but in this dialog, and goes with it. */
export function showSecret(signal, title, secret, ...told) {
  const shown = h("input", { id: "secret", readonly: true, value: secret, class: "mono", "aria-label": title, autofocus: true, onfocus: () => shown.select() });
  const said = h("p", { class: "hint", role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(secret);
      said.textContent = "Copied.";
    } catch {
      // Only pages that came over TLS, or from this machine, may use the clipboard.
      shown.select();
      said.textContent = "The browser does not let this page copy. It is selected: copy it with the keyboard.";
    }
  };
  const dialog = openDialog(
    signal,
    title,
    h("p", null, h("strong", null, "Keep it now: it will not be shown again."), " ", ...told),
    h("div", { class: "row secret" }, shown, h("button", { type: "button", class: "main", onclick: copy }, "Copy")),
    said,
    h("div", { class: "row" }, h("button", { type: "button", onclick: () => dialog.close() }, "I have kept it")),
  );
  dialog.addEventListener("cancel", (event) => event.preventDefault()); // Escape would lose it
}
