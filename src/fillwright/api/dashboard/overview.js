// What the engine does, in numbers: counts of all orders, and figures from the newest of the account's own.

import { every, get } from "./api.js";
import { columns, shares } from "./charts.js";
import { bps, clock, count, duration, h, known, millis, percent, problemBox, table } from "./dom.js";
import { logs, newest, quantile, readLogs } from "./logs.js";
import { tile } from "./order.js";
import { OPEN } from "./orders.js";

const REFRESH_MS = 10_000;
const COLUMNS = 30;
const MINUTE_MS = 60_000;
const PHASES = [
  ["waiting", "Waiting", "accepted until its first attempt begins"],
  ["routing", "Routing", "venues asked, until one is chosen"],
  ["building", "Building", "until the transaction is signed"],
  ["submitted", "On chain", "signed until the chain has decided"],
  ["whole", "Whole", "accepted until confirmed"],
];
const SHADES = ["venue-1", "venue-2", "venue-3", "venue-4"];

export async function showOverview({ main, signal }) {
  const counts = h("div", { class: "tiles" });
  const said = h("div");
  const figures = h("div");
  main.append(counts, said, figures);
  let orders = [];
  const paint = () => figures.replaceChildren(...draw(orders));
  addEventListener("resize", () => orders.length && paint(), { signal });

  every(REFRESH_MS, signal, async () => {
    try {
      const [stats, last] = await Promise.all([get("/api/orders/stats", signal), newest(signal)]);
      counts.replaceChildren(...countTiles(stats.queue, stats.websocket.connections));
      orders = last;
      if (figures.childElementCount === 0) paint(); // what is known at once; the logs take a moment
      await readLogs(orders, signal);
      said.replaceChildren();
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      said.replaceChildren(problemBox(error));
    }
    paint();
  });
}

function countTiles(queue, connections) {
  const others = queue.total - queue.waiting - queue.active - queue.delayed - queue.completed - queue.failed;
  return [
    tile("Waiting", count(queue.waiting), "for a worker"),
    tile("In hand", count(queue.active), "of workers"),
    tile("Delayed", count(queue.delayed), "until a time"),
    tile("Confirmed", count(queue.completed), "of all time"),
    tile("Failed", count(queue.failed), "of all time"),
    tile("Orders", count(queue.total), others > 0 ? `${count(others)} cancelled or expired` : "of all time"),
    tile("Streams", count(connections), "open at this process"),
  ];
}

function draw(orders) {
  if (orders.length === 0) return [h("p", { class: "empty" }, "There are no orders yet. ", h("a", { href: "#/new" }, "Submit one"), ".")];
  const read = orders.map((order) => logs.get(order.orderId)).filter((log) => log !== undefined);
  const confirmed = orders.filter((order) => order.status === "confirmed");
  const failed = orders.filter((order) => order.status === "failed");
  const ended = confirmed.length + failed.length;
  const slippages = read.map((log) => log.slippage).filter((each) => each !== null).sort((a, b) => a - b);
  const retried = orders.filter((order) => order.attempt > 1).length;
  const minutes = millis(orders.at(-1).createdAt, orders[0].createdAt) / MINUTE_MS;
  const whole = read.flatMap((log) => log.spans.whole).sort((a, b) => a - b);
  return [
    h("h2", null, orders.length === 1 ? "The last order" : `The last ${count(orders.length)} orders`),
    h(
      "div",
      { class: "tiles" },
      tile("Success rate", known(ended ? confirmed.length / ended : null, percent), `${count(confirmed.length)} confirmed, ${count(failed.length)} failed`),
      tile("Orders per minute", known(minutes > 0 ? (orders.length - 1) / minutes : null, (rate) => (rate < 100 ? rate.toFixed(1) : count(Math.round(rate)))), minutes > 0 ? `from the first to the last, over ${duration(minutes * MINUTE_MS)}` : "one moment is no rate"),
      tile("Time to fill, p50", known(quantile(whole, 0.5), duration), `p95 ${whole.length ? duration(quantile(whole, 0.95)) : "unknown"}`),
      tile("Fill against quote, p50", known(quantile(slippages, 0.5), (each) => bps(Number(each.toFixed(1)))), slippages.length ? `p5 ${bps(Number(quantile(slippages, 0.05).toFixed(1)))}` : "no fills"),
      tile("Needed more attempts", percent(retried / orders.length), `${count(retried)} of ${count(orders.length)}`),
    ),
    h(
      "div",
      { class: "grid" },
      chartCard("Orders by time", "submitted, by what has become of them", (box) => byTime(box, orders)),
      chartCard("Fill against quote", "orders by basis points between what was quoted and what came", (box) => bySlippage(box, slippages)),
      h("section", { class: "card" }, h("h3", null, "Time in each phase"), phases(read)),
      h("section", { class: "card" }, h("h3", null, "Venues that filled"), venues(confirmed), h("a", { href: "#/venues" }, "How the venues compare")),
    ),
    h("p", { class: "hint" }, `Phases and fills are from the event logs of ${count(read.length)} orders that are over.`),
  ];
}

function chartCard(title, note, paint) {
  const box = h("div", { class: "chart-box" });
  requestAnimationFrame(() => box.isConnected && paint(box));
  return h("section", { class: "card" }, h("h3", null, title), h("p", { class: "hint" }, note), box);
}

function byTime(box, orders) {
  const times = orders.map((order) => Date.parse(order.createdAt));
  const from = Math.min(...times);
  const sizes = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 21_600, 86_400].map((seconds) => seconds * 1000);
  const size = sizes.find((each) => (Math.max(...times) - from) / each < COLUMNS) ?? Math.ceil((Math.max(...times) - from + 1) / COLUMNS);
  const begin = Math.floor(from / size) * size;
  const list = Array.from({ length: Math.floor((Math.max(...times) - begin) / size) + 1 }, () => ({ confirmed: 0, failed: 0, other: 0, open: 0 }));
  orders.forEach((order, at) => {
    const kind = OPEN.has(order.status) ? "open" : ["confirmed", "failed"].includes(order.status) ? order.status : "other";
    list[Math.floor((times[at] - begin) / size)][kind] += 1;
  });
  const day = size >= 86_400_000;
  columns(
    box,
    `Orders by time, one column for ${duration(size)}`,
    list.map((each, at) => {
      const text = clock(new Date(begin + at * size).toISOString());
      const label = day ? text.slice(5, 10) : size < MINUTE_MS ? text.slice(11) : text.slice(11, 16);
      return {
        label,
        title: `${text}: ${each.confirmed} confirmed, ${each.failed} failed, ${each.open} open, ${each.other} cancelled or expired`,
        parts: Object.entries(each),
      };
    }),
  );
  box.append(legend([["confirmed", "confirmed"], ["failed", "failed"], ["open", "open"], ["other", "cancelled or expired"]], `one column: ${duration(size)}`));
}

function bySlippage(box, slippages) {
  if (slippages.length === 0) {
    box.append(h("p", { class: "empty" }, "No order was filled."));
    return;
  }
  const [low, high] = [Math.floor(slippages[0]), Math.ceil(slippages.at(-1))];
  const size = Math.max(1, Math.ceil((high - low + 1) / COLUMNS));
  const list = new Array(Math.floor((high - low) / size) + 1).fill(0);
  for (const each of slippages) list[Math.floor((each - low) / size)] += 1;
  columns(
    box,
    `Fills by difference from the quote, from ${bps(low)} to ${bps(high)}`,
    list.map((value, at) => {
      const from = low + at * size;
      return { label: bps(from).replace(" bps", ""), title: `${bps(from)} to ${bps(from + size)}: ${value}`, parts: [[from < 0 ? "worse" : "better", value]] };
    }),
  );
  box.append(legend([["worse", "less than quoted"], ["better", "as quoted or more"]], `one column: ${size} bps`));
}

function legend(kinds, note) {
  return h("ul", { class: "legend" }, kinds.map(([kind, text]) => h("li", null, h("span", { class: `dot fill ${kind}` }), text)), h("li", { class: "hint" }, note));
}

function phases(read) {
  const rows = PHASES.map(([name, title, note]) => {
    const sorted = read.flatMap((log) => log.spans[name]).sort((a, b) => a - b);
    return { title, note, n: sorted.length, at: [0.5, 0.95, 0.99].map((share) => quantile(sorted, share)) };
  });
  const longest = Math.max(1, ...rows.map((row) => row.at[2] ?? 0));
  return table(
    "Time in each phase",
    ["Phase", ["p50", "end"], ["p95", "end"], ["p99", "end"], ["n", "end wide"]],
    h(
      "tbody",
      null,
      rows.map((row) =>
        h(
          "tr",
          { title: row.note },
          h(
            "th",
            { scope: "row" },
            row.title,
            h("div", { class: "track", "aria-hidden": "true" }, ["p99", "p95", "p50"].map((kind, at) => h("div", { class: `bar ${kind}`, vars: { from: "0%", width: `${((row.at[2 - at] ?? 0) / longest) * 100}%` } }))),
          ),
          row.at.map((ms) => h("td", { class: "end nowrap" }, known(ms, duration))),
          h("td", { class: "end wide" }, count(row.n)),
        ),
      ),
    ),
  );
}

function venues(confirmed) {
  const found = new Map();
  for (const order of confirmed) {
    const name = order.selectedDex ?? "unknown";
    found.set(name, [...(found.get(name) ?? []), logs.get(order.orderId)]);
  }
  if (found.size === 0) return h("p", { class: "empty" }, "No order was filled.");
  const sorted = [...found].sort(([a], [b]) => (a < b ? -1 : 1));
  const median = (list) => quantile(list.filter((each) => each !== undefined && each !== null).sort((a, b) => a - b), 0.5);
  return [
    shares(sorted.map(([name, read], at) => [name, read.length, SHADES[at % SHADES.length]])),
    table(
      "Venues that filled",
      ["Venue", ["Fills", "end"], ["Fill against quote, p50", "end"], ["Whole, p50", "end"]],
      h(
        "tbody",
        null,
        sorted.map(([name, read]) =>
          h(
            "tr",
            null,
            h("th", { scope: "row" }, name),
            h("td", { class: "end" }, count(read.length)),
            h("td", { class: "end nowrap" }, known(median(read.map((log) => log?.slippage)), (each) => bps(Number(each.toFixed(1))))),
            h("td", { class: "end nowrap" }, known(median(read.flatMap((log) => log?.spans.whole)), duration)),
          ),
        ),
      ),
    ),
  ];
}
