#!/usr/bin/env node
// A load client for any engine that takes orders over HTTP: posts, follows, and prints what it measured as JSON.
//
//   post-sat    closed loop: each connection posts again as soon as it is answered: how many POSTs fit into a second
//   post-rate   open loop: POSTs at fixed times: how long a client waits, counted from when the POST was due
//   e2e         post a number of orders and wait until the database says that all are confirmed
//   ws-rate     orders at fixed times, each followed over a WebSocket of its own: how old an event is when it arrives
//   firehose    sockets that follow all orders while they are posted in a closed loop: how many events get through
//   submit      post until a number of orders is accepted, whatever happens to the engine, and write down their ids
//
// But for `submit`, every POST must be answered with 2xx and every order that is followed must be confirmed, or the run
// fails. `client_cpu` is how much of a core this client took while it measured.
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { Connection, postRequest } from './http.mjs';
import { atRate, nowMs } from './schedule.mjs';
import { listen } from './websocket.mjs';

const FINAL = new Set(['confirmed', 'failed', 'cancelled', 'expired']);
const IDLE_MS_MAX = 2000;
const LOOK_MS_MIN = 20;
const LOOK_MS_MAX = 1000;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: 'string' },
    path: { type: 'string', default: '/api/orders/execute' },
    'order-stream': { type: 'string', default: '/api/orders/execute?orderId={id}' },
    stream: { type: 'string', default: '/api/stream' },
    body: { type: 'string', default: '{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5,"slippage":0.01}' },
    connections: { type: 'string', default: '64' },
    orders: { type: 'string', default: '20000' },
    rate: { type: 'string', default: '100' },
    seconds: { type: 'string', default: '10' },
    'warm-up-s': { type: 'string', default: '2' },
    listeners: { type: 'string', default: '10' },
    'timeout-s': { type: 'string', default: '170' },
    db: { type: 'string' },
    'count-sql': { type: 'string', default: "SELECT count(*) FROM orders WHERE status = 'confirmed'" },
    ids: { type: 'string' },
  },
});
const [mode] = positionals;
const number = (name) => Number(options[name]);
const request = postRequest(options.url + options.path, options.body);

const modes = {
  'post-sat': postSaturated,
  'post-rate': postAtRate,
  e2e: endToEnd,
  'ws-rate': streamAtRate,
  firehose,
  submit,
};

async function postSaturated() {
  const connections = await open();
  const watch = startWatch();
  const end = nowMs() + number('seconds') * 1000;
  const latencies = [];
  await closedLoop(connections, () => nowMs() < end, latencies);
  const { seconds, client_cpu } = watch();
  const [orders, post_per_s] = [latencies.length, latencies.length / seconds];
  return { orders, seconds, client_cpu, post_per_s, ...spread('post', latencies) };
}

async function postAtRate() {
  const [pool, latencies] = [new Pool(), []];
  const figures = await openLoop(async (dueMs, warm) => {
    await pool.post();
    if (warm) latencies.push(nowMs() - dueMs);
  });
  return { ...figures, ...spread('post', latencies) };
}

async function endToEnd() {
  const [connections, database] = [await open(), new pg.Client({ connectionString: options.db })];
  await database.connect();
  const confirmed = async () => Number(Object.values((await database.query(options['count-sql'])).rows[0])[0]);
  const before = await confirmed();
  const orders = number('orders');
  let left = orders;
  const watch = startWatch();
  const posting = closedLoop(connections, () => left-- > 0).then(() => watch().seconds);
  const looks = await until(async () => (await confirmed()) - before, orders, watch);
  const { seconds, client_cpu } = watch();
  return { orders, seconds, client_cpu, orders_per_s: orders / seconds, posting_s: await posting, looks };
}

// Look at how many orders are confirmed until all are, each time after half of what the rest should take at the pace so
// far: a run takes a few dozen looks, so that looking costs next to nothing, however dear a count is to the engine.
async function until(confirmed, goal, watch) {
  let waitMs = 200;
  for (let looks = 1; ; looks++) {
    await sleep(waitMs);
    const count = await confirmed();
    if (count >= goal) return looks;
    const restMs = count ? ((goal - count) / count) * watch().seconds * 1000 : 2 * waitMs;
    waitMs = Math.min(LOOK_MS_MAX, Math.max(LOOK_MS_MIN, restMs / 2));
  }
}

async function streamAtRate() {
  const pool = new Pool();
  const [ages, wholes] = [[], []];
  const figures = await openLoop(async (dueMs, warm) => {
    const aged = await oneOrder(pool);
    if (!warm) return;
    ages.push(...aged);
    wholes.push(nowMs() - dueMs);
  });
  return { ...figures, events: ages.length, ...spread('stream', ages), ...spread('order', wholes) };
}

// Post an order and follow it to its end. Return the ages of the events that happened while the socket was open.
async function oneOrder(pool) {
  const { orderId } = JSON.parse(await pool.post());
  const ages = [];
  const over = deferred();
  let openedMs = Infinity;
  const read = (buffer, start, end) => {
    const arrivedMs = nowMs();
    const message = JSON.parse(buffer.utf8Slice(start, end));
    if (message.status && happenedMs(message) >= openedMs) ages.push(arrivedMs - happenedMs(message));
    if (message.status === 'confirmed') over.resolve();
    else if (FINAL.has(message.status)) over.reject(new Error(`an order is ${message.status}`));
  };
  const close = await listen(options.url, options['order-stream'].replace('{id}', orderId), read, over.reject);
  openedMs = nowMs();
  await over.promise;
  close();
  return ages;
}

async function firehose() {
  const [connections, orders] = [await open(), number('orders')];
  const [over, ages] = [deferred(), []];
  let [events, confirmed, lastMs] = [0, 0, 0];
  const count = () => {
    events++;
    lastMs = nowMs();
  };
  const read = (buffer, start, end) => {
    count();
    const message = JSON.parse(buffer.utf8Slice(start, end));
    if (message.status) ages.push(lastMs - happenedMs(message));
    if (message.status === 'confirmed' && ++confirmed === orders) over.resolve();
  };
  const listeners = number('listeners');
  for (let index = 0; index < listeners; index++) await subscribed(index === 0 ? read : count, over.reject);
  events = 0;
  let left = orders;
  const watch = startWatch();
  const startMs = nowMs();
  await closedLoop(connections, () => left-- > 0);
  await over.promise;
  while (events < ages.length * listeners) await sleep(5); // the others may be a little behind the first
  const [seconds, { client_cpu }] = [(lastMs - startMs) / 1000, watch()];
  const [events_per_s, orders_per_s] = [events / seconds, orders / seconds];
  return { orders, events, seconds, client_cpu, events_per_s, orders_per_s, ...spread('stream', ages) };
}

// Resolve once the socket has had its first message, which says that it is following.
function subscribed(onText, onEnd) {
  return new Promise((resolve, reject) => {
    listen(options.url, options.stream, (...text) => { resolve(); onText(...text); }, onEnd).catch(reject);
  });
}

async function submit() {
  const ids = [];
  let failed = 0;
  const post = async () => {
    let connection = null;
    while (ids.length < number('orders')) {
      try {
        connection ??= await Connection.open(options.url);
        ids.push(JSON.parse(created(await connection.exchange(request))).orderId);
      } catch {
        failed++;
        connection = null;
        await sleep(20);
      }
    }
    connection?.close();
  };
  await Promise.all(Array.from({ length: number('connections') }, post));
  writeFileSync(options.ids, ids.map((id) => `${id}\n`).join(''));
  return { accepted: ids.length, failed };
}

// Posting

function open() {
  return Promise.all(Array.from({ length: number('connections') }, () => Connection.open(options.url)));
}

// Post on every connection, again at each answer, while `more()`.
async function closedLoop(connections, more, latencies = null) {
  await Promise.all(connections.map(async (connection) => {
    while (more()) {
      const startMs = nowMs();
      created(await connection.exchange(request));
      latencies?.push(nowMs() - startMs);
    }
  }));
}

// Call `one(dueMs, warm)` at the times at which orders are due; `warm` is false while warming up.
async function openLoop(one) {
  const [rate, lags, running] = [number('rate'), [], []];
  const warmUp = Math.round(number('warm-up-s') * rate);
  const orders = warmUp + Math.round(number('seconds') * rate);
  const watch = startWatch();
  await atRate(rate, orders, (index, dueMs) => {
    lags.push(nowMs() - dueMs);
    running.push(one(dueMs, index >= warmUp));
  });
  await Promise.all(running);
  return { orders, ...watch(), lag_p99_ms: percentile(lags, 99) };
}

// Posts go out on the connection that was used last, so that few are open at a low rate. Those that nobody needed for a
// while are closed: engines close them, too, and a POST that meets such an end would be lost.
class Pool {
  #idle = [];
  #waiting = [];
  #open = 0;

  async post() {
    const connection = await this.#take();
    const body = created(await connection.exchange(request));
    const next = this.#waiting.shift();
    if (next) next(connection);
    else this.#idle.push({ connection, sinceMs: nowMs() });
    return body;
  }

  async #take() {
    while (this.#idle[0]?.sinceMs < nowMs() - IDLE_MS_MAX) {
      this.#idle.shift().connection.close();
      this.#open--;
    }
    if (this.#idle.length) return this.#idle.pop().connection;
    if (this.#open === number('connections')) return new Promise((resolve) => { this.#waiting.push(resolve); });
    this.#open++;
    return Connection.open(options.url);
  }
}

function created({ status, body }) {
  if (status < 200 || status > 299) throw new Error(`a POST was answered with ${status}: ${body.slice(0, 300)}`);
  return body;
}

// Figures

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
const happenedMs = ({ ts, timestamp }) => ts ?? Date.parse(timestamp);

function startWatch() {
  const [startMs, start] = [nowMs(), process.cpuUsage()];
  return () => {
    const seconds = (nowMs() - startMs) / 1000;
    const { user, system } = process.cpuUsage(start);
    return { seconds, client_cpu: (user + system) / 1e6 / seconds };
  };
}

// The smallest value that at least `percent` of them do not exceed.
function percentile(values, percent) {
  return Float64Array.from(values).sort()[Math.ceil((values.length * percent) / 100) - 1];
}

function spread(name, values) {
  const of = (percent) => percentile(values, percent);
  return { [`${name}_p50_ms`]: of(50), [`${name}_p99_ms`]: of(99), [`${name}_max_ms`]: of(100) };
}

if (!(mode in modes)) {
  console.error(`usage: load.mjs ${Object.keys(modes).join('|')} --url http://...`);
  process.exit(2);
}
process.on('unhandledRejection', fail);
setTimeout(() => fail(new Error(`it was not over after ${options['timeout-s']} s`)), number('timeout-s') * 1000);
try {
  console.log(JSON.stringify(await modes[mode]()));
} catch (error) {
  fail(error);
}
process.exit(0);

function fail(error) {
  console.error(`${mode}: ${error.message ?? error}`);
  process.exit(1);
}
