// A WebSocket that only listens (RFC 6455, without extensions or fragments: engines send short texts).
//
// Each text is handed on as where it stands in the bytes that were read, so that whoever only counts decodes nothing.
import { createHash, randomBytes } from 'node:crypto';
import net from 'node:net';
import { addressOf } from './http.mjs';

const [TEXT, CLOSE, PING, PONG] = [1, 8, 9, 10];
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const READ_BYTES = 256 * 1024;

// Resolve, once the handshake is done, to the function that closes it. `onText(buffer, start, end)`, `onEnd(reason)`.
export function listen(url, path, onText, onEnd) {
  return new Promise((resolve, reject) => {
    const key = randomBytes(16).toString('base64');
    const accept = createHash('sha1').update(key + GUID).digest('base64');
    let established = false;
    let closing = false;
    let kept = null;

    const send = (opcode, payload = Buffer.alloc(0)) => {
      const mask = [0, 0, 0, 0]; // a client must mask, and this one has nothing to hide
      const head = Buffer.from([0x80 | opcode, 0x80 | payload.length, ...mask]);
      if (!socket.destroyed) socket.write(Buffer.concat([head, payload]));
    };
    const close = () => {
      closing = true;
      send(CLOSE);
      socket.end();
    };
    const handshake = (data) => {
      const end = data.indexOf('\r\n\r\n');
      if (end < 0) return 0;
      const head = data.latin1Slice(0, end);
      if (!head.startsWith('HTTP/1.1 101') || !head.includes(accept)) {
        socket.destroy(new Error(`no WebSocket at ${path}: ${head}`));
        return data.length;
      }
      established = true;
      resolve(close);
      return end + 4;
    };
    const frame = (opcode, start, end, data) => {
      if (opcode === TEXT) onText(data, start, end);
      else if (opcode === PING) send(PONG, Buffer.from(data.subarray(start, end)));
      else if (opcode === CLOSE) {
        if (!closing) onEnd(`closed by the engine: ${data.utf8Slice(start + 2, end)}`);
        closing = true;
        socket.end();
      }
    };
    const read = (length, buffer) => {
      const data = kept ? Buffer.concat([kept, buffer.subarray(0, length)]) : buffer.subarray(0, length);
      let at = established ? 0 : handshake(data);
      while (established && data.length - at >= 2) {
        const { start, end } = bounds(data, at);
        if (end > data.length) break;
        frame(data[at] & 0x0f, start, end, data);
        at = end;
      }
      kept = at < data.length ? Buffer.from(data.subarray(at)) : null; // a copy: the buffer is used again
      return true;
    };

    const onread = { buffer: Buffer.allocUnsafe(READ_BYTES), callback: read };
    const socket = net.connect({ ...addressOf(url), noDelay: true, onread }, () => {
      const head = [`GET ${path} HTTP/1.1`, `Host: ${new URL(url).host}`, 'Upgrade: websocket', 'Connection: Upgrade'];
      head.push('Sec-WebSocket-Version: 13', `Sec-WebSocket-Key: ${key}`);
      socket.write(`${head.join('\r\n')}\r\n\r\n`);
    });
    socket.on('error', reject);
    socket.on('close', () => {
      reject(new Error(`the WebSocket at ${path} was closed before it was open`));
      if (established && !closing) onEnd('the connection was lost');
    });
  });
}

// Where the payload of the frame at `at` starts and ends; past the data if it has not arrived as a whole.
function bounds(data, at) {
  const short = data[at + 1] & 0x7f;
  if (short < 126) return { start: at + 2, end: at + 2 + short };
  const start = at + (short === 126 ? 4 : 10);
  if (start > data.length) return { start, end: Infinity };
  return { start, end: start + (short === 126 ? data.readUInt16BE(at + 2) : Number(data.readBigUInt64BE(at + 2))) };
}
