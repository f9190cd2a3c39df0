// The live stream as server-sent events, for where a WebSocket does not get through. A browser can put no header on it, so each
// connection goes with a ticket of its own, which is good for one request and half a minute: an EventSource that comes back by
// itself would come back with one that is spent, and is left for another.

import { guarded } from './subscription.js';
import { parsed } from './rest.js';

/** What the hub says over an event stream. */
const TYPES = ['hello', 'subscribed', 'snapshot', 'task', 'progress', 'log', 'gone', 'mark', 'lag', 'reset', 'error', 'bye'];

/** The wait before another attempt, as of the socket. */
const RETRY_MS = { first: 500, last: 15_000 };

/**
 * Calls `told` with each message of `GET /events`, until the function that it returns is called. After a cut it begins with a
 * snapshot again; who ignores what is not above the (`rev`, `tick`) they know of a task is told nothing twice.
 */
export function follow({ hub, query, told, EventSource, timers, random }) {
  let source;
  let timer;
  let failures = 0;
  let ended = false;

  async function open() {
    const url = new URL('api/v1/events', hub.base);
    for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, value);
    try {
      if (hub.hasToken) url.searchParams.set('ticket', (await hub.ticket()).ticket);
    } catch (error) {
      // A token that the hub does not take will not become one that it does.
      if (error.status !== 401 && error.status !== 403) return again();
      ended = true;
      return guarded(told, { type: 'error', code: error.code, detail: error.message });
    }
    if (ended) return;
    source = new EventSource(url.href);
    source.onerror = again;
    for (const type of TYPES) {
      // The browser's own `error` has no data.
      source.addEventListener(type, ({ data }) => {
        failures = 0;
        const message = data === undefined ? undefined : parsed(data);
        if (message) guarded(told, message);
      });
    }
  }

  function again() {
    source?.close();
    if (ended) return;
    timers.clearTimeout(timer);
    timer = timers.setTimeout(open, Math.round(random() * Math.min(RETRY_MS.first * 2 ** failures++, RETRY_MS.last)));
  }

  open();
  return () => {
    ended = true;
    timers.clearTimeout(timer);
    source?.close();
  };
}
