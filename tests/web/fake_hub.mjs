// The world a client is tested in: sockets that are only records, a clock that moves when told, randomness that is a number.

import { connect } from '../../web/taskhub.js';

/** A clock with its timers. */
export class FakeTimers {
  #now = 1_000_000;
  #timers = new Map();
  #ids = 0;

  now = () => this.#now;

  setTimeout = (fn, ms) => {
    this.#timers.set(++this.#ids, { at: this.#now + ms, fn });
    return this.#ids;
  };

  clearTimeout = (id) => this.#timers.delete(id);

  get size() {
    return this.#timers.size;
  }

  /** Time passes, and no timer runs: a machine that sleeps. */
  sleep(ms) {
    this.#now += ms;
  }

  /** Lets time pass; timers run at their moment, in order. */
  pass(ms) {
    const until = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.#now = Math.max(this.#now, due[1].at);
      due[1].fn();
    }
    this.#now = until;
  }
}

/** A hub made of a list of the sockets that were opened to it. */
export class FakeHub {
  sockets = [];
  timers = new FakeTimers();
  random = 0.5;
  statuses = [];

  /** A client connected to this hub. */
  connect(options = {}) {
    const fake = this;
    class WebSocket {
      sent = [];
      closed = false;

      constructor(url, protocols) {
        Object.assign(this, { url, protocols });
        fake.sockets.push(this);
      }

      send(text) {
        if (this.closed) throw new Error('sent on a closed socket');
        this.sent.push(JSON.parse(text));
      }

      close() {
        this.closed = true;
      }
    }
    const { timers } = this;
    const client = connect('http://hub.test', { WebSocket, timers, random: () => this.random, ...options });
    client.on('status', (status) => this.statuses.push(status));
    return client;
  }

  get socket() {
    return this.sockets.at(-1);
  }

  /** What the client sent since this was last read. */
  get sent() {
    return this.socket.sent.splice(0);
  }

  /** Gives the client one text of these messages. */
  say(...messages) {
    this.socket.onmessage({ data: messages.map((message) => JSON.stringify(message)).join('\n') });
  }

  hello(more = {}) {
    this.say({ type: 'hello', epoch: 'e1', rev: 1, ping_ms: 25_000, ...more });
  }

  /** Answers the newest subscribe request with a whole snapshot and a mark. */
  answer(tasks = [], { rev = 1 } = {}) {
    const { id, sub } = this.socket.sent.findLast(({ op }) => op === 'subscribe');
    this.say({ type: 'subscribed', id, sub, mode: 'snapshot', rev }, { type: 'snapshot', sub, tasks, more: false }, { type: 'mark', rev });
  }

  close(code = 1006) {
    const { socket } = this;
    socket.closed = true;
    socket.onclose({ code, reason: '' });
  }
}

/** A task record. */
export const task = (task_id, rev, more = {}) => ({
  task_id,
  task_type: 'report',
  queue: 'default',
  status: 'pending',
  attempt: 0,
  created_at: `2026-01-01T00:00:0${rev % 10}.000Z`,
  rev,
  tick: 0,
  ...more,
});
