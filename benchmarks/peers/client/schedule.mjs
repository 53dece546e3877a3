// Fixed times. A thread of its own keeps them: an event loop's timers are as coarse as the millisecond that we measure.
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';

export const nowMs = () => performance.timeOrigin + performance.now();

// Call `due(number, dueMs)` for 0, 1, ... at `rate` per second; resolve after the last.
export function atRate(rate, count, due) {
  const startMs = nowMs() + 200; // a thread takes time to start
  const dueMs = (number) => startMs + (number * 1000) / rate;
  return new Promise((resolve, reject) => {
    const thread = new Worker(new URL(import.meta.url), { workerData: { rate, count, startMs } });
    thread.on('message', (number) => {
      due(number, dueMs(number));
      if (number === count - 1) resolve();
    });
    thread.on('error', reject);
  });
}

function keepTime({ rate, count, startMs }) {
  const nobody = new Int32Array(new SharedArrayBuffer(4));
  for (let number = 0; number < count; number++) {
    const waitMs = startMs + (number * 1000) / rate - nowMs();
    if (waitMs > 0) Atomics.wait(nobody, 0, 0, waitMs);
    parentPort.postMessage(number);
  }
}

if (!isMainThread) keepTime(workerData);
