// A page that is asked for: while somebody looks at it, every few seconds, and not at all while the page is hidden or the hub
// is away. Then it says from when it is.

import { h, setText } from './dom.js';
import { complaint, time } from './words.js';

/** For what may change many times a second: it is asked for no more often than this. */
const REFRESH_LEAST_MS = 1_000;

/**
 * It is asked for again every `refresh_ms`. `ask()` asks, draws, and gives what is to be said above. `listen(changed)`, where there is one, begins to listen for
 * changes, and gives what ends that. A view of it has `refresh()`, which asks at once.
 */
export function askedView({ hub, now, name, list, refresh_ms, ask, listen }) {
  const summary = h('p', { class: 'summary' });
  const element = h('section', { class: 'page', hidden: true }, h('div', { class: 'title-line' }, h('h1', {}, name), summary), list);
  let timer;
  let shown = false;
  let said = ''; // of the newest answer
  let asked_at; // when it came
  let trouble = '';
  let asking = false;
  let ends;

  async function refresh() {
    clearTimeout(timer);
    if (!shown) return;
    if (!document.hidden && hub.status === 'live' && !asking) {
      asking = true;
      try {
        said = await ask();
        list.hidden = false;
        trouble = '';
        asked_at = now();
      } catch (error) {
        trouble = `Could not be asked for: ${complaint(error)}`;
      } finally {
        asking = false;
      }
    }
    const is_old = hub.status !== 'live' || trouble;
    const from = asked_at === undefined ? '' : `${said ? `${said}, as` : 'As'} of ${time(asked_at)}. `;
    const why = hub.status === 'connecting' ? 'Waiting for the hub.' : hub.status === 'live' ? trouble : 'The hub is not there; this page asks again as soon as it is.';
    setText(summary, is_old ? from + why : said);
    again(refresh_ms);
  }

  function again(after_ms) {
    clearTimeout(timer);
    timer = setTimeout(refresh, after_ms);
  }

  function changed() {
    again(asked_at === undefined ? 0 : Math.min(REFRESH_LEAST_MS, Math.max(0, asked_at + REFRESH_LEAST_MS - now())));
  }

  document.addEventListener('visibilitychange', refresh);
  let status_was;
  hub.on('status', ({ status }) => {
    if (status !== status_was) refresh();
    status_was = status;
  });

  return {
    element,
    refresh,
    show() {
      shown = true;
      element.hidden = false;
      list.hidden = asked_at === undefined;
      ends ??= listen?.(changed);
      refresh();
    },
    hide() {
      ends = ends?.();
      shown = false;
      element.hidden = true;
      clearTimeout(timer);
    },
  };
}
