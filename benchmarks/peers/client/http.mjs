// HTTP/1.1 as far as a load client needs it: connections that are kept open and send bytes made once.
//
// A general client (undici) takes 100 us of CPU per POST, this one 15 to 40. On a machine that engine and client share,
// what the client takes is what the engine does not get.
import net from 'node:net';

const READ_BYTES = 64 * 1024;

export function postRequest(url, body) {
  const { host, pathname } = new URL(url);
  const head = `POST ${pathname} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\n`;
  return Buffer.from(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

export function addressOf(url) {
  const { hostname, port, protocol } = new URL(url);
  if (protocol !== 'http:') throw new Error(`${url}: the engine's URL must begin with http://`);
  return { host: hostname, port: Number(port || 80) };
}

// One request in flight at most.
export class Connection {
  #socket;
  #kept = null; // of an answer that has not arrived as a whole
  #waiting = null;
  #closing = false;

  static open(url) {
    const connection = new Connection();
    return new Promise((resolve, reject) => {
      const callback = (length, buffer) => connection.#read(length, buffer);
      const onread = { buffer: Buffer.allocUnsafe(READ_BYTES), callback };
      connection.#socket = net.connect({ ...addressOf(url), noDelay: true, onread }, () => resolve(connection));
      connection.#socket.on('error', (error) => { reject(error); connection.#fail(error); });
      connection.#socket.on('close', () => connection.#fail(new Error('the connection was closed')));
    });
  }

  // Resolve to {status, body}; reject if the connection is lost.
  exchange(request) {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(new Error('the connection was closed'));
      this.#waiting = { resolve, reject };
      this.#socket.write(request);
    });
  }

  close() {
    this.#closing = true;
    this.#socket.destroy();
  }

  #read(length, buffer) {
    const data = this.#kept ? Buffer.concat([this.#kept, buffer.subarray(0, length)]) : buffer.subarray(0, length);
    const headEnd = data.indexOf('\r\n\r\n');
    const head = headEnd < 0 ? '' : data.latin1Slice(0, headEnd);
    const answerEnd = headEnd + 4 + (headEnd < 0 ? 0 : contentLength(head));
    if (headEnd < 0 || data.length < answerEnd) {
      this.#kept = Buffer.from(data); // a copy: the buffer is used again
      return true;
    }
    this.#kept = null;
    const { resolve } = this.#waiting;
    this.#waiting = null;
    resolve({ status: Number(head.slice(9, 12)), body: data.utf8Slice(headEnd + 4, answerEnd) });
    return true;
  }

  #fail(error) {
    if (!this.#closing) this.#waiting?.reject(error);
    this.#waiting = null;
  }
}

function contentLength(head) {
  const found = /\r\ncontent-length: *(\d+)/i.exec(head);
  if (!found) throw new Error(`an answer without Content-Length: ${head}`);
  return Number(found[1]);
}
