// The account's newest orders, and what their event logs say: read once, for every page that has figures of them.

import { canSpare, get } from "./api.js";
import { millis } from "./dom.js";
import { OPEN } from "./orders.js";

const LAST = 500;
const PAGE_MAX = 200;
const AT_ONCE = 6;

export const logs = new Map(); // order id -> what its events say, for as long as the order is among the last

export async function newest(signal) {
  const orders = [];
  let cursor = null;
  do {
    const limit = Math.min(PAGE_MAX, LAST - orders.length);
    const answer = await get(`/api/orders?limit=${limit}${cursor ? `&cursor=${cursor}` : ""}`, signal);
    orders.push(...answer.orders);
    cursor = answer.nextCursor;
  } while (cursor !== null && orders.length < LAST);
  return orders;
}

/** Read the events of those orders whose events are not known, a few at once; say after each that it was. */
export async function readLogs(orders, signal, said = () => {}) {
  const wanted = new Set(orders.map((order) => order.orderId));
  for (const id of logs.keys()) if (!wanted.has(id)) logs.delete(id);
  const missing = orders.filter((order) => !OPEN.has(order.status) && !logs.has(order.orderId));
  const read = async () => {
    while (canSpare() && missing.length > 0) {
      const order = missing.shift();
      const { events } = await get(`/api/orders/${order.orderId}/events`, signal);
      logs.set(order.orderId, summary(events));
      said();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, read));
}

function summary(events) {
  const spans = { waiting: [], routing: [], building: [], submitted: [], whole: [] };
  let quoted = null;
  let slippage = null;
  let routeless = 0; // attempts that ended before a venue was chosen
  const decisions = []; // of each route that was chosen, the quotes
  events.forEach((event, at) => {
    if (event.event === "RouteSelected") {
      decisions.push(event.data.quotes.map(({ dex, pool, code, legs, outAmount }) => ({ dex, code, pools: legs?.map((leg) => ({ dex: leg.dex, pool: leg.pool })) ?? (pool ? [{ dex, pool }] : []), outAmount: outAmount === undefined ? null : Number(outAmount) })));
      quoted = Number(event.data.quotes.find((quote) => quote.selected).outAmount);
    }
    if (event.event === "Confirmed") {
      spans.whole.push(millis(events[0].timestamp, event.timestamp));
      if (quoted) slippage = (Number(event.data.outAmount) / quoted - 1) * 10_000;
    }
    if (at === 0) return;
    const before = events[at - 1];
    const ms = millis(before.timestamp, event.timestamp);
    if (before.event === "RoutingStarted" && ["AttemptFailed", "Failed"].includes(event.event)) routeless += 1;
    if (before.event === "Accepted" && event.event === "RoutingStarted") spans.waiting.push(ms);
    if (before.event === "RoutingStarted" && event.event === "RouteSelected") spans.routing.push(ms);
    if (before.event === "RouteSelected" && event.event === "TransactionSigned") spans.building.push(ms);
    if (before.event === "TransactionSigned") spans.submitted.push(ms);
  });
  return { spans, slippage, decisions, routeless };
}

/** Return the value at or below which a share of the sorted values lies; undefined if there are none. */
export function quantile(sorted, share) {
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
}
