// The fields of forms, and where it is said what is wrong with them.

import { h } from "./dom.js";

export function textField(name, properties) {
  return h("input", { id: name, name, autocomplete: "off", spellcheck: "false", ...properties });
}

/** An input with its label, and a place beside it for what is wrong with it. */
export function field(input, text, hint = "") {
  input.setAttribute("aria-describedby", `${input.id}-hint ${input.id}-wrong`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: input.id }, text, input),
    hint ? h("span", { class: "hint", id: `${input.id}-hint` }, hint) : null,
    h("span", { class: "wrong", id: `${input.id}-wrong` }),
  );
}

/** Mark the field that a refusal names, and say beside it what is wrong; unmark the others. Return whether one was named. */
export function blame(fields, error) {
  for (const [name, input] of Object.entries(fields)) {
    const isWrong = name === error?.field;
    isWrong ? input.setAttribute("aria-invalid", "true") : input.removeAttribute("aria-invalid");
    const beside = document.getElementById(`${input.id}-wrong`);
    if (beside !== null) beside.textContent = isWrong ? error.message.replace(`${name}: `, "") : "";
  }
  return Object.hasOwn(fields, error?.field ?? "");
}

/** Return a percentage as a fraction, both as text: 0.25 is 0.0025, exactly. */
export function fraction(text) {
  const [whole, part = ""] = text.split(".");
  const digits = whole.padStart(3, "0");
  return `${digits.slice(0, -2)}.${digits.slice(-2)}${part}`;
}
