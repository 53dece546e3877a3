// What holds the engine back: its mode, the limits, and who is told.

import { ask, every, get, session } from "./api.js";
import { meter } from "./charts.js";
import { badge, h, known, percent, problemBox, table, time, usd } from "./dom.js";

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
  const webhooks = h("div");
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
    h("section", { class: "card" }, h("h2", null, "Limits, and what is used of them today"), limits),
    h("section", { class: "card" }, h("h2", null, "Webhooks"), webhooks),
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
  every(REFRESH_MS, signal, () =>
    Promise.all([
      part(shown, "/api/mode", show),
      part(limits, "/api/limits", (answer) => limits.replaceChildren(...answer.limits.sort(everybodyFirst).map(limitsOf))),
      part(webhooks, "/api/webhooks", (answer) => webhooks.replaceChildren(webhookTable(answer.webhooks))),
    ]),
  );
}

function unknownMode(mode) {
  return `This page does not know the mode ${mode}.`;
}

function everybodyFirst(a, b) {
  return (b.of === "everybody") - (a.of === "everybody") || (a.of < b.of ? -1 : 1);
}

function limitsOf({ of, limits, used }) {
  const rows = [...limitRows(limits, used)];
  const today = used === null ? "What is used is not told to this key." : usedText(used);
  return h(
    "div",
    { class: "part" },
    h("h3", null, of.replace(/^./, (first) => first.toUpperCase())),
    rows.length
      ? table(
          `Limits of ${of}`,
          ["Limit", ["At most", "end"], ["Used", "end"], ["", "wide"]],
          h(
            "tbody",
            null,
            rows.map(([name, limit, now]) =>
              h(
                "tr",
                null,
                h("th", { scope: "row" }, name),
                h("td", { class: "end" }, name.startsWith("USD") ? usd(limit) : limit),
                h("td", { class: "end" }, now === undefined ? "per order" : known(now, name.startsWith("USD") ? usd : String)),
                h("td", { class: "wide" }, now === undefined || now === null ? "" : meter(Number(now), Number(limit), `${now} of ${limit}`)),
              ),
            ),
          ),
        )
      : h("p", { class: "empty" }, "No limits are set."),
    h("p", { class: "hint" }, today),
  );
}

/** Yield [name, limit, used]: undefined where the limit is on each order, null where what is used is not known. */
function* limitRows(limits, used) {
  if (limits.orderUsd !== undefined) yield ["USD in one order", limits.orderUsd];
  if (limits.dayUsd !== undefined) yield ["USD in a day", limits.dayUsd, used?.usd ?? null];
  for (const [token, amount] of Object.entries(limits.orderAmount ?? {})) yield [`${token} in one order`, amount];
  for (const [token, amount] of Object.entries(limits.dayAmount ?? {})) yield [`${token} in a day`, amount, used ? (used.amounts[token] ?? "0") : null];
  if (limits.openOrders !== undefined) yield ["Open orders", String(limits.openOrders), used ? String(used.openOrders) : null];
  if (limits.tokens !== undefined) yield ["Tokens", limits.tokens.join(", ")];
  if (limits.slippage !== undefined) yield ["Slippage", percent(Number(limits.slippage), 2)];
  if (limits.priceImpact !== undefined) yield ["Price impact", percent(Number(limits.priceImpact), 2)];
  if (limits.priceDeviation !== undefined) yield ["Distance from the reference price", percent(Number(limits.priceDeviation), 2)];
}

function usedText(used) {
  const amounts = Object.entries(used.amounts).map(([token, amount]) => `${amount} ${token}`);
  return `Today: ${[`${usd(used.usd)} USD`, ...amounts].join(", ")}; ${used.openOrders} open ${used.openOrders === 1 ? "order" : "orders"}.`;
}

function webhookTable(webhooks) {
  if (webhooks.length === 0) return h("p", { class: "empty" }, "No address is told of orders.");
  return table(
    "Webhooks",
    ["Address", "Account", ["Key", "wide"], ["Added", "wide"], ["Id", "wide"]],
    h(
      "tbody",
      null,
      webhooks.map((each) =>
        h(
          "tr",
          null,
          h("th", { scope: "row", class: "break" }, each.url),
          h("td", null, badge(each.account)),
          h("td", { class: "wide" }, each.keyId ?? "none"),
          h("td", { class: "wide nowrap" }, time(each.addedAt)),
          h("td", { class: "wide" }, h("code", null, each.webhookId)),
        ),
      ),
    ),
  );
}
