// Says how this page stands with the hub: a word in the header, and a banner when what you see may be old or the hub is not well.

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

/** How often the hub is asked whether it is well: nobody pushes that. */
const HEALTH_MS = 10_000;

/** The hub does not know who this is. */
const WHO_IS_IT = 4501;

/** What a refusal means, and what to do about it. */
const REFUSALS = {
  4503: ['The hub does not let this page in.', 'It answers only to the names and pages it was told of. Open it under its own address, or start it with this page’s name allowed.'],
  4504: ['The hub has too many connections from here.', 'Close other pages, then reload this one.'],
  4505: ['This page and the hub do not speak the same language.', 'One of them is newer. Reload the page.'],
};

/**
 * Says how this page stands with the hub. `health` asks whether the hub is well: nothing, or `{code, detail}`.
 */
export function connectionView({ hub, word, banner, announce, health, now }) {
  let state = { status: hub.status, behind: false };
  let live_at; // when this page was last known to be right
  let retry_at;
  let said = '';
  let timer;
  let late = ''; // what there is to say of the hub's own delay
  let ill; // what the hub cannot do at the moment
  let control_is; // which control the banner has
  const text = h('span', { class: 'text' });
  word.replaceChildren(h('span', { class: 'dot', 'aria-hidden': 'true' }), text);

  function tell(next) {
    const was_live = state.status === 'live';
    if (was_live && next.status !== 'live') live_at = now();
    state = next;
    retry_at = next.retry_ms === undefined ? undefined : now() + next.retry_ms;
    clearTimeout(timer);
    if (next.status !== 'live') [late, ill] = ['', undefined];
    if (next.status === 'resuming') timer = setTimeout(draw, RESUMING_MS);
    else if (next.behind && !banner.firstChild) timer = setTimeout(draw, BEHIND_MS);
    else draw();
    drawWord();
    if (next.status === 'live' && !was_live) ask();
  }

  function drawWord() {
    const shown = state.status === 'live' && (state.behind || late) ? 'behind' : state.status;
    word.dataset.status = shown;
    document.documentElement.toggleAttribute('data-stale', !['live', 'behind', 'connecting'].includes(shown));
    const is_stranger = state.status === 'refused' && state.close_code === WHO_IS_IT;
    if (is_stranger) word.dataset.status = 'closed';
    setText(text, is_stranger ? 'Not signed in' : state.status === 'offline' && state.reason === DEAF ? 'Reconnecting' : WORDS[shown]);
  }

  function draw() {
    const { status, behind, close_code, reason } = state;
    const from = live_at ? `What you see is from ${time(live_at)}.` : '';
    if (status === 'offline') drawOffline(from);
    else if (status === 'resuming') show('warn', 'Connected again, catching up.', from);
    else if (status === 'refused' && close_code === WHO_IS_IT) show(''); // the page asks
    else if (status === 'refused') {
      const [what, todo] = REFUSALS[close_code] ?? ['The hub does not want this connection.', ''];
      show('bad', what, `${[reason, todo, from].filter(Boolean).join(' ')} (${close_code})`, 'reload');
    } else if (behind) show('warn', 'This page is behind.', 'Changes came faster than it could take them; the newest of each task is on its way.');
    else if (late) show('warn', late, 'The hub has more to tell than it can; tasks are further on than they look here.');
    else if (ill) show('warn', ill.code === 'draining' ? 'The hub is going down.' : 'The hub takes no new work.', `${ill.detail ?? ''}`.replace(/[^.]$/, '$&.'));
    else show('');
  }

  /** Until it is there again, the time that is left is said anew. */
  function drawOffline(from) {
    const { reason, close_code } = state;
    const what = reason === DEAF ? 'Live updates have stopped coming.' : close_code === 4001 ? 'The hub is restarting.' : live_at ? 'The hub cannot be reached.' : `No hub answers at ${location.host}.`;
    const why = close_code > 4001 && reason ? `It said: ${reason}.` : reason?.startsWith('no token') ? `There is ${reason}.` : '';
    const tick = () => {
      const left_ms = retry_at - now();
      const when = left_ms > 0 ? `Trying again in ${span(Math.ceil(left_ms / 1_000) * 1_000).replace('.0', '')}.` : 'Trying again now.';
      show('bad', what, [why, from, when].filter(Boolean).join(' '), 'try');
      if (state.status === 'offline') timer = setTimeout(tick, 500);
    };
    tick();
  }

  const controls = {
    try: () => h('button', { type: 'button', onclick: hub.reconnect }, 'Try now'),
    reload: () => h('button', { type: 'button', onclick: () => location.reload() }, 'Reload'),
  };

  /** Draws only what changed: a button that has the focus stays, and so does what is typed. */
  function show(kind, what = '', more = '', control) {
    banner.className = kind;
    if (!kind) banner.replaceChildren();
    else if (!banner.firstChild || control !== control_is) banner.replaceChildren(h('p', {}, h('strong'), ' ', h('span')), ...(control ? [controls[control]()] : []));
    control_is = kind ? control : undefined;
    if (kind) {
      setText(banner.querySelector('strong'), what);
      setText(banner.querySelector('p > span'), more);
    }
    if (said !== what) announce(what || 'Live again.');
    said = what;
  }

  /** The hub says so itself, about once a second. */
  function tellLag({ feed_lag_ms = 0 }) {
    const now_late = behindBy(feed_lag_ms);
    if (state.status !== 'live' || now_late === late) return;
    late = now_late;
    draw();
    drawWord();
  }

  let asking;
  async function ask() {
    clearTimeout(asking);
    if (state.status !== 'live') return;
    if (!document.hidden) {
      const now_ill = await health();
      if (state.status !== 'live') return;
      if (now_ill?.code !== ill?.code || now_ill?.detail !== ill?.detail) {
        ill = now_ill;
        draw();
      }
    }
    clearTimeout(asking);
    asking = setTimeout(ask, HEALTH_MS);
  }

  hub.stats(tellLag);
  hub.on('status', tell);
  tell(state);
  ask();
}
