// Says how this page stands with the hub: a word in the header, a banner when what you see may be old, a form when a token is wanted.

import { h, setText } from './dom.js';
import { behindBy, span, time } from './words.js';

const WORDS = {
  connecting: 'Connecting',
  live: 'Live',
  behind: 'Behind',
  offline: 'Offline',
  resuming: 'Catching up',
  refused: 'Refused',
  closed: 'Closed',
};

/** Catching up takes a moment after each cut; only one that takes longer is worth a banner. */
const RESUMING_MS = 400;

/** So does taking what was merged while this page was slow. */
const BEHIND_MS = 1_000;

/** The connection was fine and what it said was not: by another one it may be. */
const DEAF = 'deaf';

export function connectionView({ hub, word, banner, announce, signIn, now }) {
  let state = { status: hub.status, behind: false };
  let live_at; // when this page was last known to be right
  let retry_at;
  let said;
  let timer;
  let late = ''; // what there is to say of the hub's own delay
  const text = h('span', { class: 'text' });
  word.replaceChildren(h('span', { class: 'dot', 'aria-hidden': 'true' }), text);

  function tell(next) {
    if (state.status === 'live' && next.status !== 'live') live_at = now();
    state = next;
    retry_at = next.retry_ms === undefined ? undefined : now() + next.retry_ms;
    clearTimeout(timer);
    if (next.status !== 'live') late = '';
    if (next.status === 'resuming') timer = setTimeout(draw, RESUMING_MS);
    else if (next.behind && !banner.firstChild) timer = setTimeout(draw, BEHIND_MS);
    else draw();
    drawWord();
  }

  function drawWord() {
    const shown = state.status === 'live' && (state.behind || late) ? 'behind' : state.status;
    word.dataset.status = shown;
    document.documentElement.toggleAttribute('data-stale', !['live', 'behind', 'connecting'].includes(shown));
    setText(text, state.status === 'offline' && state.reason === DEAF ? 'Reconnecting' : WORDS[shown]);
  }

  function draw() {
    const { status, behind, close_code, reason } = state;
    const from = live_at ? ` What you see is from ${time(live_at)}.` : '';
    if (status === 'offline') {
      const wait = h('span');
      const tick = () => {
        const left_ms = retry_at - now();
        setText(wait, left_ms > 0 ? `Trying again in ${span(Math.ceil(left_ms / 1_000) * 1_000).replace('.0', '')}.` : 'Trying again now.');
        if (state.status === 'offline') timer = setTimeout(tick, 500);
      };
      const what = reason === DEAF ? 'Live updates have stopped coming.' : close_code === 4001 ? 'The hub is restarting.' : live_at ? 'The hub cannot be reached.' : `No hub answers at ${location.host}.`;
      show('bad', `${what}${from}`, h('p', {}, h('strong', {}, what), from, ' ', wait), h('button', { type: 'button', onclick: hub.reconnect }, 'Try now'));
      tick();
    } else if (status === 'resuming') {
      show('warn', 'Connected again, catching up.', h('p', {}, h('strong', {}, 'Connected again, catching up.'), from));
    } else if (behind) {
      const what = 'This page is behind.';
      show('warn', what, h('p', {}, h('strong', {}, what), ' Changes came faster than it could take them; the newest of each task is on its way.'));
    } else if (late) {
      show('warn', 'Live updates are behind.', h('p', {}, h('strong', {}, late), ' The hub has more to tell than it can; tasks are further on than they look here.'));
    } else if (status === 'refused') {
      const wanted = close_code === 4501 ? 'The hub wants to know who you are.' : 'The hub does not want this connection.';
      const why = ` (${[close_code, reason].filter(Boolean).join(', ')})${from}`;
      show('bad', wanted, h('p', {}, h('strong', {}, wanted), why), close_code === 4501 ? tokenForm() : reloadButton());
    } else if (banner.firstChild) {
      show('', 'Live again.');
    }
  }

  const reloadButton = () => h('button', { type: 'button', onclick: () => location.reload() }, 'Reload');

  function tokenForm() {
    const input = h('input', { type: 'password', autocomplete: 'off', placeholder: 'Token', 'aria-label': 'Token', required: true });
    return h('form', { onsubmit: (event) => (event.preventDefault(), signIn(input.value.trim())) }, input, h('button', {}, 'Sign in'));
  }

  function show(kind, words, ...content) {
    banner.className = kind;
    banner.replaceChildren(...content);
    if (said !== words) announce(words);
    said = words;
  }

  /** The hub says so itself, about once a second. */
  function tellLag({ feed_lag_ms = 0 }) {
    const now_late = behindBy(feed_lag_ms);
    if (state.status !== 'live' || now_late === late) return;
    late = now_late;
    draw();
    drawWord();
  }

  hub.stats(tellLag);
  hub.on('status', tell);
  tell(state);
}
