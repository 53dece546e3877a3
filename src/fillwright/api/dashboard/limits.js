// How far orders may go: what is set, what is used of it, and how it is changed.

import { ask, get, isOperator } from "./api.js";
import { meter } from "./charts.js";
import { openDialog } from "./dialog.js";
import { h, known, percent, problemBox, redraw, table, usd } from "./dom.js";
import { blame, field, fraction, textField } from "./form.js";

const PERCENT = new Set(["slippage", "priceImpact", "priceDeviation"]);
const AMOUNTS = new Set(["orderAmount", "dayAmount"]);
const FIELDS = [
  ["orderUsd", "USD in one order", "such as 5000"],
  ["dayUsd", "USD in a day", "UTC, such as 50000"],
  ["orderAmount", "Amounts in one order", "what an order may sell, such as SOL=20, JUP=5000"],
  ["dayAmount", "Amounts in a day", "such as SOL=200"],
  ["openOrders", "Open orders", "at the same time"],
  ["tokens", "Tokens", "the only ones that may be sold and bought, such as SOL, USDC"],
  ["slippage", "Slippage, %", "that an order may ask for"],
  ["priceImpact", "Price impact, %", "how far an order may move the price of its pool"],
  ["priceDeviation", "Distance from the reference price, %", "of what a quote pays"],
];

/** Return the part of a page from which operators change limits: `known` is told each answer of the engine's. */
export function changeOfLimits(signal, changed) {
  const whose = h("select", { id: "whose" }, h("option", { value: "everybody" }, "everybody together"));
  const said = h("div", { role: "status" });
  const part = h("div");
  let answer = null;
  let isOffered = false;

  const open = (event) => {
    event.preventDefault();
    said.replaceChildren();
    edit(signal, whose.value, answer.limits.find(({ of }) => of === whose.value)?.limits ?? {}, () => {
      said.replaceChildren(h("p", { class: "done" }, `Limits of ${whose.value} are set. `, h("a", { href: "#/audit" }, "Audit log")));
      changed();
    });
  };
  const offer = async () => {
    const { keys } = await get("/api/keys", signal);
    const active = keys.filter((key) => key.revokedAt === null);
    const accounts = [...new Set(["local", ...active.map((key) => key.account)])].sort();
    whose.append(
      h("optgroup", { label: "Accounts" }, accounts.map((each) => h("option", { value: `account ${each}` }, `account ${each}`))),
      active.length ? h("optgroup", { label: "Keys" }, active.map((key) => h("option", { value: `key ${key.keyId}` }, `key ${key.name} (${key.keyId})`))) : "",
    );
    part.replaceChildren(
      h("form", { class: "filters", onsubmit: open }, h("label", { for: "whose" }, "Limits of", whose), h("button", { type: "submit" }, "Change limits\u2026")),
      said,
    );
  };
  return {
    part,
    known: (latest) => {
      answer = latest;
      if (isOffered) return;
      isOffered = true;
      if (isOperator(latest)) offer().catch((error) => signal.aborted || error.status === 401 || part.replaceChildren(problemBox(error)));
      else part.replaceChildren(h("p", { class: "hint" }, "A key with the scope admin can change them."));
    },
  };
}

/** Let somebody's limits be written anew, say in words what that changes, and set them once that is confirmed. */
function edit(signal, of, before, done) {
  const fields = Object.fromEntries(FIELDS.map(([name]) => [name, textField(name, { value: written(name, before[name]), placeholder: "no limit" })]));
  const said = h("div");
  const body = h("div");
  let after = {};

  const review = (event) => {
    event.preventDefault();
    said.replaceChildren();
    const found = read(fields);
    blame(fields, found.problem ?? null);
    if (found.problem) {
      fields[found.problem.field].focus();
      return;
    }
    after = found.limits;
    const changes = inWords(before, after);
    const set = h("button", { type: "button", class: "main", onclick: send }, "Set these limits");
    body.replaceChildren(
      h("h3", null, changes.length ? "This will change" : "Nothing would change"),
      h("ul", { id: "changes" }, changes.map((each) => h("li", null, each))),
      changes.length ? h("p", { class: "hint" }, "It holds for every order that is accepted or signed from a second later on, and is written into the audit log.") : "",
      h("div", { class: "row" }, changes.length ? set : "", h("button", { type: "button", autofocus: true, onclick: write }, "Back")),
    );
    body.querySelector("[autofocus]").focus();
  };
  const send = async (event) => {
    event.target.disabled = true;
    said.replaceChildren();
    try {
      // All limits are set at once: what somebody else has changed meanwhile must not be set back unseen.
      const { limits } = await get("/api/limits", signal);
      const now = limits.find((each) => each.of === of)?.limits ?? {};
      if (JSON.stringify(now) !== JSON.stringify(before)) {
        write();
        said.replaceChildren(h("p", { class: "problem", role: "alert" }, "Somebody else has changed these limits meanwhile. Close this, look at them, and begin anew."));
        return;
      }
      await ask("PUT", "/api/limits", { body: { of, limits: after }, signal });
      dialog.close();
      done();
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      write();
      if (blame(fields, error)) fields[error.field].focus();
      else said.replaceChildren(problemBox(error));
    }
  };
  const form = h(
    "form",
    { onsubmit: review },
    h("p", { class: "hint" }, "A field that is empty is no limit."),
    h("div", { class: "fields" }, FIELDS.map(([name, text, hint]) => field(fields[name], text, hint))),
    h("div", { class: "row" }, h("button", { type: "submit", class: "main" }, "Review\u2026"), h("button", { type: "button", onclick: () => dialog.close() }, "Cancel")),
  );
  const write = () => body.replaceChildren(form);
  write();
  const dialog = openDialog(signal, `Limits of ${of}`, body, said);
}

/** Return a limit as it is written in its field. */
function written(name, value) {
  if (value === undefined) return "";
  if (PERCENT.has(name)) return String(Number((Number(value) * 100).toFixed(2)));
  if (AMOUNTS.has(name)) return Object.entries(value).map(([token, amount]) => `${token}=${amount}`).join(", ");
  return name === "tokens" ? value.join(", ") : String(value);
}

/** Return the limits in the fields, or what is wrong with one of them. What they may be is for the engine to say. */
function read(fields) {
  const limits = {};
  for (const [name] of FIELDS) {
    const text = fields[name].value.trim();
    if (text === "") continue;
    const parts = text.split(",").map((part) => part.trim()).filter((part) => part !== "");
    if (PERCENT.has(name)) {
      if (!/^[0-9]+([.][0-9]+)?$/.test(text)) return { problem: { field: name, message: "write a percentage, such as 0.5" } };
      limits[name] = fraction(text);
    } else if (name === "tokens") limits[name] = parts;
    else if (!AMOUNTS.has(name)) limits[name] = text;
    else {
      const amounts = parts.map((part) => part.split("=").map((each) => each.trim()));
      const odd = amounts.findIndex((each) => each.length !== 2);
      if (odd !== -1) return { problem: { field: name, message: `write TOKEN=AMOUNT, such as SOL=20, not \u201c${parts[odd]}\u201d` } };
      limits[name] = Object.fromEntries(amounts);
      if (Object.keys(limits[name]).length !== amounts.length) return { problem: { field: name, message: "a token is named twice" } };
    }
  }
  return { limits };
}

/** Return, in words, what differs between two sets of limits. */
function inWords(before, after) {
  const [was, is] = [before, after].map((limits) => new Map([...limitRows(limits, null)].map(([name, most]) => [name, name.startsWith("USD ") && !Number.isNaN(Number(most)) ? usd(most) : String(most)])));
  return [...new Set([...was.keys(), ...is.keys()])].flatMap((name) => {
    const verb = name === "Tokens" ? "only" : "at most";
    if (!is.has(name)) return [`${name}: no limit any more (now ${verb} ${was.get(name)})`];
    if (!was.has(name)) return [`${name}: ${verb} ${is.get(name)} (now no limit)`];
    return was.get(name) === is.get(name) ? [] : [`${name}: ${verb} ${is.get(name)} instead of ${was.get(name)}`];
  });
}

/** Show all limits, and what is used of them. */
export function drawLimits(box, { limits }) {
  redraw(box, limits.sort(everybodyFirst).map(limitsOf));
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
                h("td", { class: "end" }, name.startsWith("USD ") ? usd(limit) : limit),
                h("td", { class: "end" }, now === undefined ? "per order" : known(now, name.startsWith("USD ") ? usd : String)),
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
