// The venues beside each other: what they pay now, and what they did for the account's newest orders.

import { ask, atMostEvery, canSpare, every } from "./api.js";
import { shares } from "./charts.js";
import { bps, count, duration, h, known, percent, problemBox, redraw, shortHash, table, time } from "./dom.js";
import { blame, field, textField } from "./form.js";
import { logs, newest, quantile, readLogs } from "./logs.js";
import { tokenList } from "./new.js";
import { quotesTable, tile } from "./order.js";

const QUOTES_MS = 5_000;
const PAUSE_MS = 400;
const FIGURES_MS = 10_000;
const PAINT_MS = 500;
const POOLS = 12;
const USABLE = new Set(["selected", "outbid"]);
const SHADES = ["venue-1", "venue-2", "venue-3", "venue-4"];

export async function showVenues({ main, signal }) {
  compare(main, signal);
  const said = h("div");
  const figures = h("div");
  main.append(said, figures);
  let orders = [];
  let painted = "";
  const paint = () => {
    const state = `${logs.size} of ${orders.map((order) => order.orderId + order.seq).join()}`;
    if (state === painted) return;
    painted = state;
    redraw(figures, ...draw(orders));
  };
  const soon = atMostEvery(PAINT_MS, signal, paint);
  every(FIGURES_MS, signal, async () => {
    try {
      orders = await newest(signal);
      await readLogs(orders, signal, soon);
      said.replaceChildren();
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      said.replaceChildren(problemBox(error));
    }
    paint();
  });
}

/** Ask all venues what they would pay for a swap, again and again. */
function compare(main, signal) {
  const fields = {
    amount: textField("amount", { value: "1", inputmode: "decimal", size: "10" }),
    tokenIn: textField("tokenIn", { value: "SOL", list: "tokens", size: "10" }),
    tokenOut: textField("tokenOut", { value: "USDC", list: "tokens", size: "10" }),
  };
  const said = h("div");
  const answer = h("div");
  const as = h("p", { class: "hint" });
  let shown = "";
  let timer = 0;
  signal.addEventListener("abort", () => clearTimeout(timer));

  const look = every(QUOTES_MS, signal, async () => {
    const body = Object.fromEntries(Object.entries(fields).map(([name, input]) => [name, input.value.trim()]));
    const swap = JSON.stringify(body);
    if (swap === shown && !canSpare()) return;
    try {
      const quote = await ask("POST", "/api/quotes", { body, signal });
      if (swap !== shown) blame(fields, null);
      said.replaceChildren();
      redraw(answer, h("p", null, quote.reason, "."), quotesTable(quote.quotes, quote.tokenOut));
      as.replaceChildren("As of ", time(quote.timestamp), `; asked again every ${QUOTES_MS / 1000} s. Nothing is executed.`);
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      answer.replaceChildren();
      as.replaceChildren();
      if (swap === shown) return; // as it was said
      said.replaceChildren(blame(fields, error) ? "" : problemBox(error));
    } finally {
      shown = swap;
    }
  });
  main.append(
    h(
      "section",
      { class: "card" },
      h("h2", null, "What they pay now"),
      tokenList(),
      h(
        "form",
        {
          class: "filters",
          onsubmit: (event) => {
            event.preventDefault();
            look();
          },
          oninput: () => {
            clearTimeout(timer);
            timer = setTimeout(look, PAUSE_MS);
          },
        },
        field(fields.amount, "Amount in"),
        field(fields.tokenIn, "Token in"),
        field(fields.tokenOut, "Token out"),
      ),
      said,
      answer,
      as,
    ),
  );
}

function draw(orders) {
  const read = orders.filter((order) => logs.has(order.orderId)).map((order) => ({ order, log: logs.get(order.orderId) }));
  const decisions = read.flatMap(({ log }) => log.decisions);
  const heading = h("h2", null, "What they did");
  if (orders.length === 0) return [heading, h("p", { class: "empty" }, "There are no orders yet. ", h("a", { href: "#/new" }, "Submit one"), ".")];
  const venues = figuresOf(read, decisions);
  const routeless = read.reduce((sum, { log }) => sum + log.routeless, 0);
  return [
    heading,
    h(
      "div",
      { class: "tiles" },
      tile("Routes chosen", count(decisions.length), `for ${count(read.length)} orders that are over`),
      tile("Attempts without a route", count(routeless), "no venue gave a usable quote"),
      tile("Fills", count(venues.reduce((sum, venue) => sum + venue.fills.length, 0)), "that the chain confirmed"),
    ),
    decisions.length === 0
      ? h("p", { class: "empty" }, "No venue has been chosen yet.")
      : [
          h(
            "section",
            { class: "card" },
            h("h3", null, "Routes chosen, by venue"),
            shares(venues.map((venue, at) => [venue.name, venue.won, SHADES[at % SHADES.length]])),
            besideEachOther(venues),
          ),
          h("section", { class: "card" }, h("h3", null, "Pools"), poolsOf(decisions)),
        ],
    h("p", { class: "hint" }, `From the event logs of ${count(read.length)} of the last ${count(orders.length)} orders. Where no route was found, the log does not say which venue refused.`),
  ];
}

/** Return the figures of each venue. One may have given several quotes for an order: it competes with its best. */
function figuresOf(read, decisions) {
  const venues = new Map();
  const venue = (name) => {
    if (!venues.has(name)) venues.set(name, { name, asked: 0, won: 0, given: 0, refusals: new Map(), behind: [], fills: [] });
    return venues.get(name);
  };
  for (const quotes of decisions) {
    const chosen = quotes.find((quote) => quote.code === "selected");
    for (const name of new Set(quotes.map((quote) => quote.dex))) {
      const its = venue(name);
      const own = quotes.filter((quote) => quote.dex === name);
      const usable = own.filter((quote) => USABLE.has(quote.code));
      its.asked += 1;
      its.given += usable.length;
      for (const { code } of own) if (!USABLE.has(code)) its.refusals.set(code, (its.refusals.get(code) ?? 0) + 1);
      if (name === chosen.dex) its.won += 1;
      else if (usable.length) its.behind.push((1 - Math.max(...usable.map((quote) => quote.outAmount)) / chosen.outAmount) * 10_000);
    }
  }
  for (const { order, log } of read) if (order.status === "confirmed") venue(order.selectedDex).fills.push(log);
  return [...venues.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function besideEachOther(venues) {
  const rows = [
    ["Win rate", "routes that went to it, of those for which it was asked", (venue) => [percent(venue.won / venue.asked), h("div", { class: "hint" }, `${count(venue.won)} of ${count(venue.asked)}`)]],
    ["Quotes given", "that could have been taken", (venue) => count(venue.given)],
    ["Quotes refused", "with the codes", (venue) => refusals(venue.refusals)],
    ["Outbid", "quotes that another venue beat", (venue) => count(venue.behind.length)],
    ["Outbid by, p50", "basis points less than the best", (venue) => spread(venue.behind, 0.5)],
    ["Outbid by, p95", "", (venue) => spread(venue.behind, 0.95)],
    ["Fills", "that the chain confirmed", (venue) => count(venue.fills.length)],
    ["Fill against quote, p50", "", (venue) => slippage(venue.fills, 0.5)],
    ["Fill against quote, p5", "the worst of twenty", (venue) => slippage(venue.fills, 0.05)],
    ["Time to fill, p50", "", (venue) => known(quantile(sorted(venue.fills.flatMap((log) => log.spans.whole)), 0.5), duration)],
  ];
  return table(
    "Venues beside each other",
    ["", ...venues.map((venue) => [venue.name, "end"])],
    h(
      "tbody",
      null,
      rows.map(([name, note, tell]) =>
        h("tr", null, h("th", { scope: "row" }, name, note ? h("div", { class: "hint" }, note) : null), venues.map((venue) => h("td", { class: "end" }, tell(venue)))),
      ),
    ),
  );
}

const sorted = (list) => list.filter((each) => each !== null).sort((a, b) => a - b);
const spread = (behind, share) => known(quantile(sorted(behind), share), (each) => `${Number(each.toFixed(1))} bps`);
const slippage = (fills, share) => known(quantile(sorted(fills.map((log) => log.slippage)), share), (each) => bps(Number(each.toFixed(1))));

function refusals(codes) {
  const all = [...codes].sort(([, a], [, b]) => b - a);
  return [count(all.reduce((sum, [, times]) => sum + times, 0)), all.map(([code, times]) => h("div", { class: "hint" }, h("a", { href: `/docs#${code}` }, code), ` ${count(times)}`))];
}

/** A pool counts once in a decision, though it stands in several quotes: alone, and together with others. */
function poolsOf(decisions) {
  const pools = new Map();
  for (const quotes of decisions) {
    const usable = quotes.filter((quote) => USABLE.has(quote.code));
    const chosen = new Set(usable.filter((quote) => quote.code === "selected").flatMap((quote) => quote.pools.map(({ pool }) => pool)));
    for (const [pool, dex] of new Map(usable.flatMap((quote) => quote.pools.map(({ pool, dex }) => [pool, dex])))) {
      const its = pools.get(pool) ?? { venue: dex, pool, given: 0, won: 0 };
      its.given += 1;
      its.won += chosen.has(pool) ? 1 : 0;
      pools.set(pool, its);
    }
  }
  const all = [...pools.values()].sort((a, b) => b.won - a.won || b.given - a.given);
  return [
    table(
      "Pools",
      ["Pool", ["Quotes", "end"], ["Chosen", "end"], ["Share", "end"]],
      h(
        "tbody",
        null,
        all.slice(0, POOLS).map((its) =>
          h(
            "tr",
            null,
            h("th", { scope: "row" }, h("code", { title: its.pool }, shortHash(its.pool)), h("div", { class: "hint" }, its.venue)),
            h("td", { class: "end" }, count(its.given)),
            h("td", { class: "end" }, count(its.won)),
            h("td", { class: "end nowrap" }, percent(its.won / its.given)),
          ),
        ),
      ),
    ),
    all.length > POOLS ? h("p", { class: "hint" }, `and ${count(all.length - POOLS)} that were chosen less often`) : null,
  ];
}
