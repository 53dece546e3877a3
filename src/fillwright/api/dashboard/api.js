// The engine, as this page reaches it.

const STORED = "fillwright.key";
const RECONNECT_MS = 500;
const RECONNECT_MS_MAX = 10_000;

export const session = new EventTarget();

let quota = Infinity; // requests in a minute, and how many of them are left: of the key, whoever else uses it
let left = Infinity;

/** Return whether there are requests to spare for what can wait: half of them are kept for what people do. */
export function canSpare() {
  return left >= quota / 2;
}

export function hasKey() {
  return sessionStorage.getItem(STORED) !== null;
}

export function useKey(key) {
  sessionStorage.setItem(STORED, key);
}

export function forgetKey() {
  sessionStorage.removeItem(STORED);
}

/** What the engine answers when it refuses, or `unreachable`. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.message);
    this.status = status;
    this.code = body.code;
    this.field = body.field;
    this.body = body;
  }
}

/** Return the JSON of an answer. Throw a Problem; on a 401, also say so to the session. */
export async function ask(method, path, { body, headers, signal, quiet } = {}) {
  const key = sessionStorage.getItem(STORED);
  let response;
  let answer;
  try {
    response = await fetch(path, {
      method,
      signal,
      cache: "no-store",
      headers: {
        accept: "application/json",
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(key === null ? {} : { authorization: `Bearer ${key}` }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    quota = Number(/;q=(\d+)/.exec(response.headers.get("ratelimit-policy"))?.[1] ?? Infinity);
    left = Number(/;r=(\d+)/.exec(response.headers.get("ratelimit"))?.[1] ?? Infinity);
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(response?.status ?? 0, { code: "unreachable", message: "The engine does not answer." });
  }
  if (response.ok) return answer;
  const problem = new Problem(response.status, answer);
  if (response.status === 401 && !quiet) session.dispatchEvent(new CustomEvent("unauthorized", { detail: { sent: key } }));
  throw problem;
}

export const get = (path, signal) => ask("GET", path, { signal });

/** Return the id of the key in use; null without one. */
export function keyId() {
  return sessionStorage.getItem(STORED)?.split("_")[1] ?? null;
}

/** Return whether the caller has the scope `admin`: only then is it told what everybody has used. */
export function isOperator({ limits }) {
  return limits.some(({ of, used }) => of === "everybody" && used !== null);
}

/** Hear a stream until `signal` aborts; a connection that breaks is opened again, at the path of that moment. */
export function follow(path, signal, { heard, opened = () => {}, closed = () => {} }) {
  let socket = null;
  let wait = RECONNECT_MS;
  let timer = 0;

  const again = () => {
    closed();
    if (signal.aborted) return;
    timer = setTimeout(connect, wait);
    wait = Math.min(wait * 2, RECONNECT_MS_MAX);
  };

  async function connect() {
    let url = new URL(path(), location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    if (hasKey()) {
      try {
        const { ticket } = await ask("POST", "/api/tickets", { signal });
        url.searchParams.set("ticket", ticket);
      } catch (error) {
        if (error.status !== 401) again();
        return;
      }
    }
    if (signal.aborted) return;
    let over = false;
    socket = new WebSocket(url);
    socket.addEventListener("message", (event) => {
      const message = JSON.parse(event.data);
      if (message.event === "connection:established") {
        wait = RECONNECT_MS;
        opened();
      } else {
        heard(message);
      }
    });
    socket.addEventListener("close", (event) => {
      over = event.code === 1000;
      if (!over) again();
      else closed();
    });
  }

  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    socket?.close();
  });
  connect();
}

/** Run `work` now and every `ms` while the page can be seen, never twice at once. Return what runs it out of turn. */
export function every(ms, signal, work) {
  let running = false;
  let wanted = false;
  async function run() {
    if (signal.aborted) return;
    if (running) {
      wanted = true;
      return;
    }
    running = true;
    try {
      do {
        wanted = false;
        await work();
      } while (wanted && !signal.aborted);
    } finally {
      running = false;
    }
  }
  const timer = setInterval(() => document.hidden || run(), ms);
  const seen = () => document.hidden || run();
  document.addEventListener("visibilitychange", seen, { signal });
  signal.addEventListener("abort", () => clearInterval(timer));
  run();
  return run;
}

/** Return a function that runs `work` soon, and at most once in `ms` however often it is called. */
export function atMostEvery(ms, signal, work) {
  let timer = 0;
  let last = -Infinity;
  signal.addEventListener("abort", () => clearTimeout(timer));
  return () => {
    if (timer !== 0 || signal.aborted) return;
    const wait = Math.max(0, last + ms - performance.now());
    timer = setTimeout(() => {
      timer = 0;
      last = performance.now();
      work();
    }, wait);
  };
}
