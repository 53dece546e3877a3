// A form for one order, with what it would get now.

import { ask, get } from "./api.js";
import { h, price, problemBox, time } from "./dom.js";
import { blame, fraction, textField } from "./form.js";
import { quotesTable, tile } from "./order.js";

// For typing less; any symbol or mint that the engine knows can be written.
const TOKENS = ["SOL", "USDC", "USDT", "RAY", "JUP", "BONK", "mSOL", "JitoSOL", "PYTH", "ORCA", "WIF", "ETH"];
const PAUSE_MS = 400;

export function tokenList() {
  return h("datalist", { id: "tokens" }, TOKENS.map((token) => h("option", { value: token })));
}

export async function showNew({ main, signal }) {
  const tokenIn = textField("tokenIn", { value: "SOL", list: "tokens", required: true });
  const tokenOut = textField("tokenOut", { value: "USDC", list: "tokens", required: true });
  const amount = textField("amount", { value: "1", inputmode: "decimal", required: true, pattern: "[0-9]+([.][0-9]+)?", title: "a number such as 1.5" });
  const slippage = textField("slippage", { value: "1", inputmode: "decimal", required: true, pattern: "[0-9]+([.][0-9]{1,2})?", title: "percent, such as 1 or 0.25" });
  const clientOrderId = textField("clientOrderId", { maxlength: "128", placeholder: "one is made" });
  const expiresAt = textField("expiresAt", { type: "datetime-local", step: "1" });
  const fields = { tokenIn, tokenOut, amount, slippage, clientOrderId, expiresAt };
  const said = h("div");
  const preview = h("div", { "aria-live": "polite" });
  const send = h("button", { type: "submit", class: "main" }, "Submit order");
  // Of one filled-in form there is one order, however often its answer is lost and the button is pressed again.
  let made = newId();

  const terms = () => ({
    tokenIn: tokenIn.value.trim(),
    tokenOut: tokenOut.value.trim(),
    amount: amount.value.trim(),
    slippage: fraction(slippage.value.trim()),
    ...(expiresAt.value ? { expiresAt: new Date(expiresAt.value).toISOString() } : {}),
  });

  let asked = new AbortController();
  let timer = 0;
  const look = async () => {
    asked.abort();
    asked = new AbortController();
    blame(fields, null);
    if (!form.checkValidity()) {
      preview.replaceChildren(h("p", { class: "empty" }, "Fill in the form to see what the order would get."));
      return;
    }
    const body = terms();
    preview.setAttribute("aria-busy", "true");
    try {
      const quote = await ask("POST", "/api/quotes", { body, signal: asked.signal });
      preview.replaceChildren(
        h(
          "div",
          { class: "tiles" },
          tile("Would receive", `${quote.outAmount} ${quote.tokenOut}`, `at least ${quote.minOutAmount}`),
          tile("Price", price(quote.price), `${quote.tokenOut} per ${quote.tokenIn}`),
          tile("Venue", quote.selectedDex, quote.reason),
        ),
        quotesTable(quote.quotes, quote.tokenOut),
        h("p", { class: "hint" }, "As of ", time(quote.timestamp), ". The order is routed anew when it is its turn. ", h("button", { type: "button", class: "quiet", onclick: look }, "Ask again")),
      );
    } catch (error) {
      if (error.name === "AbortError" || error.status === 401) return;
      blame(fields, error);
      preview.replaceChildren(problemBox(error));
    } finally {
      preview.removeAttribute("aria-busy");
    }
  };

  const changed = () => {
    made = newId();
    clearTimeout(timer);
    timer = setTimeout(look, PAUSE_MS);
  };

  const submit = async (event) => {
    event.preventDefault();
    send.disabled = true;
    said.replaceChildren();
    blame(fields, null);
    try {
      const accepted = await ask("POST", "/api/orders/execute", {
        body: { ...terms(), clientOrderId: clientOrderId.value.trim() || made },
        signal,
      });
      location.hash = `#/orders/${accepted.orderId}`;
    } catch (error) {
      send.disabled = false;
      if (signal.aborted || error.status === 401) return;
      blame(fields, error);
      said.replaceChildren(problemBox(error));
    }
  };

  const row = (input, text, hint = "") => h("label", { for: input.id }, text, input, hint ? h("span", { class: "hint" }, hint) : null);
  const form = h(
    "form",
    { class: "card form", onsubmit: submit, oninput: changed },
    tokenList(),
    row(amount, "Amount in"),
    row(tokenIn, "Token in", "symbol or mint"),
    row(tokenOut, "Token out", "symbol or mint"),
    row(slippage, "Slippage, %", "0 to 10"),
    row(clientOrderId, "Client order id", "your own name for it; repeated, it is the same order"),
    row(expiresAt, "Expires", "nothing is signed after it; empty: never"),
    said,
    h("div", { class: "row" }, send),
  );
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    asked.abort();
  });
  main.append(h("div", { class: "two" }, form, h("section", { class: "card" }, h("h2", null, "What it would get now"), preview)));
  const { mode } = await get("/api/mode", signal);
  if (mode !== "active") {
    form.before(h("p", { class: "problem" }, `The engine is in the mode ${mode}: it takes no new orders. `, h("a", { href: "#/risk" }, "Risk")));
  }
  await look();
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return `dashboard-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
