// A service that puts its orders into a BullMQ queue, driven by a test: a command per line in, answers and events out.
import { createInterface } from "node:readline";
import { Queue, QueueEvents, Worker } from "bullmq";

const [url, name, prefix] = process.argv.slice(2);
const { hostname: host, port } = new URL(url);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const queue = new Queue(name, { connection, prefix });
const events = new QueueEvents(name, { connection, prefix, lastEventId: "0-0" });
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

// A worker of somebody else's, which gives up jobs whose worker died once.
const stranger = (options) => {
  const worker = new Worker(name, () => new Promise(() => {}), {
    ...{ connection, prefix, maxStalledCount: 0, stalledInterval: 100, lockDuration: 200 },
    ...options,
  });
  worker.on("error", () => {});
  return worker;
};
const first = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));

const commands = {
  add: async ({ jobs }) => (await queue.addBulk(jobs)).map((job) => job.id),
  // What Bull Board shows of a job.
  look: async ({ jobId }) => {
    const job = await queue.getJob(jobId);
    if (!job) return null;
    const { logs } = await queue.getJobLogs(jobId);
    return { ...job.toJSON(), state: await job.getState(), logs };
  },
  remove: async ({ jobId }) => await (await queue.getJob(jobId)).remove(),
  retry: async ({ jobId }) => await (await queue.getJob(jobId)).retry(),
  counts: async () => await queue.getJobCounts(),
  workers: async () => (await queue.getWorkers()).length,
  empty: async () => await queue.obliterate({ force: true }),
  takeAndDie: async () => {
    const worker = stranger({ skipStalledCheck: true });
    await first(worker, "active");
    await worker.close(true);
  },
  giveUp: async ({ take }) => {
    const worker = stranger({ autorun: take });
    if (!take) await worker.startStalledCheckTimer();
    await first(worker, take ? "failed" : "stalled");
    await worker.close(true);
  },
  repeat: async ({ id, every, limit, data }) => void (await queue.upsertJobScheduler(id, { every, limit }, { data })),
};

for (const event of ["waiting", "active", "progress", "completed", "failed", "stalled", "delayed"]) {
  events.on(event, (told) => say({ event, ...told }));
}
for (const source of [queue, events]) {
  source.on("error", () => {}); // Redis went away: ioredis connects again by itself
}
await Promise.all([queue.waitUntilReady(), events.waitUntilReady()]);
say({ ready: true });

for await (const line of createInterface({ input: process.stdin })) {
  const { number, command, ...given } = JSON.parse(line);
  commands[command](given).then(
    (answer) => say({ number, answer }),
    (error) => say({ number, error: error.message }),
  );
}
process.exit(0);
