// What holds the engine back: its mode and the limits.

import { ask, every, get, session } from "./api.js";
import { h, problemBox } from "./dom.js";
import { changeOfLimits, drawLimits } from "./limits.js";

const REFRESH_MS = 5_000;
const MODES = {
  active: "Orders are taken and executed.",
  reduce: "No new orders are taken; what is open is finished.",
  halted: "No new orders are taken, and nothing is signed. What is signed may still land.",
};
const BUTTONS = [
  ["halted", "Halt", "danger"],
  ["reduce", "Reduce", ""],
  ["active", "Resume", "main"],
];

export async function showRisk({ main, signal }) {
  const shown = h("div", { role: "status" });
  const said = h("div");
  const limits = h("div");
  const change = changeOfLimits(signal, () => look());
  const reason = h("input", { id: "reason", maxlength: "200", placeholder: "for the audit log", autocomplete: "off" });
  let mode = null;

  const show = (answer) => {
    mode = answer.mode;
    shown.replaceChildren(
      h("p", { class: "row" }, h("span", { class: `badge big mode-${mode}`, id: "current" }, mode), MODES[mode] ?? unknownMode(mode)),
      answer.reason ? h("p", { class: "hint" }, `Reason: ${answer.reason}`) : "",
    );
    for (const button of buttons) button.disabled = button.value === mode;
    session.dispatchEvent(new CustomEvent("mode", { detail: mode }));
  };
  const set = async (event) => {
    const wanted = event.currentTarget.value;
    for (const button of buttons) button.disabled = true;
    said.replaceChildren();
    try {
      show(await ask("PUT", "/api/mode", { body: { mode: wanted, reason: reason.value.trim() }, signal }));
      reason.value = "";
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      said.replaceChildren(problemBox(error));
      for (const button of buttons) button.disabled = button.value === mode;
    }
  };
  const buttons = BUTTONS.map(([value, text, kind]) => h("button", { type: "button", value, class: kind, onclick: set, disabled: true }, text));

  main.append(
    h(
      "section",
      { class: "card" },
      h("h2", null, "Mode"),
      shown,
      h("label", { for: "reason", class: "narrow" }, "Reason", reason),
      h("div", { class: "row" }, buttons),
      said,
    ),
    h("section", { class: "card" }, h("h2", null, "Limits, and what is used of them today"), change.part, limits),
  );

  // Each by itself: a key may be allowed to see one and not another.
  const part = async (box, path, draw) => {
    try {
      const answer = await get(path, signal);
      draw(answer);
    } catch (error) {
      if (!signal.aborted && error.status !== 401) box.replaceChildren(problemBox(error));
    }
  };
  const look = every(REFRESH_MS, signal, () =>
    Promise.all([
      part(shown, "/api/mode", show),
      part(limits, "/api/limits", (answer) => {
        drawLimits(limits, answer);
        change.known(answer);
      }),
    ]),
  );
}

function unknownMode(mode) {
  return `This page does not know the mode ${mode}.`;
}
