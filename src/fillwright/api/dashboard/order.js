// One order: what happened and when, why this venue, what each attempt did.

import { ask, atMostEvery, follow, get } from "./api.js";
import { badge, bps, duration, facts, h, known, millis, pair, percent, price, problemBox, shortHash, table, time, words } from "./dom.js";
import { OPEN } from "./orders.js";

const CANCELLABLE = new Set(["pending", "routing", "building"]);
const NEWS_MS = 100;

export async function showOrder({ main, heading, signal, argument: id }) {
  const path = `/api/orders/${id}`;
  const body = h("div", { class: "order" });
  const said = h("div");
  main.append(said, body);
  let order = null;
  let isRawOpen = false;

  const cancel = async (event) => {
    event.target.disabled = true;
    said.replaceChildren();
    try {
      await ask("DELETE", path, { signal });
    } catch (error) {
      if (error.status !== 401 && !signal.aborted) said.replaceChildren(problemBox(error));
    }
    await refresh();
  };

  const refresh = async () => {
    const [seen, log, why] = await Promise.all([get(path, signal), get(`${path}/events`, signal), get(`${path}/explain`, signal)]);
    if (order !== null && seen.seq < order.seq) return;
    order = seen;
    heading.textContent = pair(order);
    document.title = `${pair(order)} \u2013 Fillwright`;
    const held = document.activeElement?.id;
    body.replaceChildren(...sections(order, log.events, why, cancel).filter((section) => section !== null));
    const raw = body.querySelector("details");
    raw.open = isRawOpen;
    raw.addEventListener("toggle", () => { isRawOpen = raw.open; });
    if (held) document.getElementById(held)?.focus();
  };

  await refresh();
  if (!OPEN.has(order.status)) return;
  const soon = atMostEvery(NEWS_MS, signal, () =>
    refresh().catch((error) => signal.aborted || error.status === 401 || said.replaceChildren(problemBox(error))),
  );
  let seq = order.seq;
  follow(() => `${path}/stream?after=${seq}`, signal, {
    heard: (update) => {
      seq = update.seq;
      soon();
    },
  });
}

function sections(order, events, why, cancel) {
  const took = OPEN.has(order.status) ? ["open since", " ", time(order.createdAt)] : [duration(millis(order.createdAt, order.updatedAt))];
  const isFilled = order.fill !== null;
  return [
    h(
      "div",
      { class: "row" },
      h("span", { role: "status", id: "order-status" }, badge(order.status)),
      h("span", { class: "hint" }, ...took),
      CANCELLABLE.has(order.status) ? h("button", { type: "button", id: "cancel", class: "danger", onclick: cancel }, "Cancel order") : null,
    ),
    order.error
      ? h("p", { class: "problem" }, h("strong", null, order.error.code), ` ${order.error.message} `, h("a", { href: `/docs#${order.error.code}` }, "What this code means"))
      : null,
    h(
      "div",
      { class: "tiles" },
      tile("Received", isFilled ? `${order.fill.outAmount} ${order.tokenOut}` : waiting(order), why.quotedOutAmount ? `quoted ${why.quotedOutAmount}` : ""),
      tile("Price", order.executedPrice === null ? waiting(order) : price(order.executedPrice), `${order.tokenOut} per ${order.tokenIn}`),
      tile("Fill against quote", why.quoteToFillBps === null ? waiting(order) : bps(why.quoteToFillBps), `slippage up to ${percent(order.slippage, 2)}`),
      tile("Venue", order.selectedDex ?? waiting(order), order.attempt === 0 ? "no attempt yet" : `attempt ${order.attempt}`),
    ),
    h("section", { class: "card" }, h("h2", null, "Timeline"), timeline(events)),
    h("section", { class: "card" }, h("h2", null, "Quotes compared"), decisions(why, order)),
    h("section", { class: "card" }, h("h2", null, "Attempts"), attempts(order)),
    h(
      "section",
      { class: "card" },
      h("h2", null, "Facts"),
      facts(
        ["Order id", h("code", null, order.orderId)],
        ["Client order id", order.clientOrderId ?? "none"],
        ["Type", order.orderType],
        ["At least", order.minOutAmount === null ? "not routed yet" : `${order.minOutAmount} ${order.tokenOut}`],
        ["Transaction", order.txHash ? h("code", { class: "break" }, order.txHash) : "none"],
        ["Slot", isFilled ? known(order.fill.slot) : "none"],
        ["Network fee", isFilled ? known(order.fill.feeLamports, (fee) => `${fee} lamports`) : "none"],
        ["Created", time(order.createdAt)],
        ["Last change", time(order.updatedAt)],
        ["Expires", order.expiresAt === null ? "never" : time(order.expiresAt)],
        ["Mint in", h("code", { class: "break" }, order.mintIn)],
        ["Mint out", h("code", { class: "break" }, order.mintOut)],
      ),
    ),
    h("details", { class: "card" }, h("summary", null, "Raw JSON"), h("pre", { tabindex: "0" }, JSON.stringify({ order, events, explain: why }, null, 2))),
  ];
}

function waiting(order) {
  return OPEN.has(order.status) ? "not yet" : "none";
}

export function tile(name, value, note = "") {
  return h("div", { class: "tile" }, h("div", { class: "name" }, name), h("div", { class: "value" }, value), h("div", { class: "hint" }, note));
}

function timeline(events) {
  const begin = events[0].timestamp;
  const whole = Math.max(1, millis(begin, events.at(-1).timestamp));
  return h(
    "ol",
    { class: "timeline" },
    events.map((event, at) => {
      const since = at === 0 ? 0 : millis(events[at - 1].timestamp, event.timestamp);
      const offset = millis(begin, event.timestamp);
      return h(
        "li",
        null,
        h("div", { class: "what" }, badge(event.status), h("strong", null, words(event.event)), h("span", { class: "hint" }, `+${duration(offset)}`)),
        h("div", { class: "told" }, tell(event)),
        at === 0
          ? null
          : h(
              "div",
              { class: "span" },
              h("div", { class: "track" }, h("div", { class: `bar ${events[at - 1].status}`, vars: { from: `${((offset - since) / whole) * 100}%`, width: `${(since / whole) * 100}%` } })),
              h("span", { class: "hint" }, `${duration(since)} ${events[at - 1].status}`),
            ),
      );
    }),
  );
}

function tell({ event, data }) {
  switch (event) {
    case "Accepted": return `${pair(data)}, slippage up to ${percent(data.slippage, 2)}`;
    case "RoutingStarted": return `attempt ${data.attempt}: every venue is asked`;
    case "RouteSelected": return data.reason;
    case "TransactionSigned": return [`attempt ${data.attempt} on ${data.selectedDex}: `, h("code", { title: data.txHash }, shortHash(data.txHash)), `, valid up to block ${data.lastValidBlockHeight}`];
    case "Confirmed": return `received ${data.outAmount} for ${data.inAmount}, in slot ${data.slot}`;
    case "AttemptFailed": return [h("strong", null, data.error.code), ` ${data.error.message}; again from `, time(data.retryAt), " on"];
    case "Failed": return [h("strong", null, data.error.code), ` ${data.error.message}`];
    case "Cancelled": return data.by ? `by ${data.by}` : "by the client";
    default: return Object.entries(data).map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join(", ");
  }
}

function decisions(why, order) {
  if (why.decisions.length === 0) return h("p", { class: "empty" }, "No venue has been chosen.");
  return why.decisions.map((decision) => [
    h("p", null, why.decisions.length > 1 ? h("strong", null, `Attempt ${decision.attempt}: `) : null, decision.reason),
    quotesTable(decision.quotes, order.tokenOut),
  ]);
}

export function quotesTable(quotes, token) {
  const best = Number(quotes.find((quote) => quote.selected)?.outAmount);
  return table(
    "Quotes",
    ["Venue", ["Pays after fees", "end"], ["Against the best", "end"], ["Fee", "wide end"], ["Price impact", "wide end"]],
    h(
      "tbody",
      null,
      quotes.map((quote) => {
        const behind = Math.round((Number(quote.outAmount) / best - 1) * 10_000);
        return h(
          "tr",
          { class: quote.selected ? "chosen" : null },
          h(
            "th",
            { scope: "row" },
            quote.dex,
            " ",
            quote.selected ? badge("selected") : h("div", { class: "hint" }, `${quote.code}: ${quote.reason}`),
            swaps(quote),
          ),
          h("td", { class: "end loose" }, known(quote.outAmount, (amount) => `${amount} ${token}`)),
          h("td", { class: "end nowrap" }, quote.selected ? "best" : known(quote.outAmount === undefined ? null : behind, bps)),
          h("td", { class: "wide end nowrap" }, known(quote.feeBps, (fee) => `${fee} bps`)),
          h("td", { class: "wide end nowrap" }, known(quote.priceImpactBps, (impact) => `${impact} bps`)),
        );
      }),
    ),
  );
}

/** Name the pools of a quote: with several, what each takes and gives. */
function swaps(quote) {
  const legs = quote.legs ?? [];
  if (legs.length < 2) return quote.pool ? h("div", { class: "hint" }, legs.length ? `${quote.type} pool ` : "pool ", h("code", { title: quote.pool }, shortHash(quote.pool))) : null;
  return legs.map((leg) => h("div", { class: "hint" }, `${leg.inAmount} ${leg.tokenIn} to ${leg.outAmount} ${leg.tokenOut}: ${leg.dex} ${leg.type} pool `, h("code", { title: leg.pool }, shortHash(leg.pool))));
}

function attempts(order) {
  if (order.attempts.length === 0) return h("p", { class: "empty" }, "None yet.");
  return table(
    "Attempts",
    ["No.", "Venue", "Outcome", ["Started", "wide"], ["Took", "end"], ["Transaction", "wide"]],
    h(
      "tbody",
      null,
      order.attempts.map((each) =>
        h(
          "tr",
          null,
          h("th", { scope: "row" }, String(each.attempt)),
          h("td", null, each.selectedDex ?? "none"),
          h("td", null, badge(each.status), each.error ? h("div", { class: "hint" }, h("strong", null, each.error.code), ` ${each.error.message}`) : null),
          h("td", { class: "wide nowrap" }, time(each.startedAt)),
          h("td", { class: "end nowrap" }, each.endedAt ? duration(millis(each.startedAt, each.endedAt)) : "\u2026"),
          h("td", { class: "wide nowrap" }, each.txHash ? h("code", { title: each.txHash }, shortHash(each.txHash)) : "none"),
        ),
      ),
    ),
  );
}
