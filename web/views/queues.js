// The queues: what stands in each, how it hands out, and whether it is paused. Asked for while it is looked at, every three
// seconds and when something is set; and not at all while the page is hidden or the hub is away. Then it says from when it is.

import { askedView } from './asked.js';
import { h, setText } from './dom.js';
import { keyed } from './pairs.js';
import { complaint, count, short, span } from './words.js';

const REFRESH_MS = 3_000;

const EMPTY = { name: undefined };

export function queuesView({ hub, announce, now }) {
  const list = h('ul', { class: 'workers queues' });
  const setRows = keyed(list, ({ name }) => name, (queue) => (queue === EMPTY ? noQueue() : queueRow({ hub, announce, refresh: () => view.refresh() })));

  async function ask() {
    const queues = await hub.queues();
    setRows(queues.length ? queues : [EMPTY]);
    return summaryOf(queues);
  }

  const view = askedView({ hub, now, name: 'Queues', list, refresh_ms: REFRESH_MS, ask, listen: () => hub.settings(() => view.refresh()) });
  return view;
}

/** How many there are, and how many are paused. */
export function summaryOf(queues) {
  if (!queues.length) return '';
  const paused = queues.filter((queue) => queue.paused).length;
  return `${count(queues.length)} ${queues.length === 1 ? 'queue' : 'queues'}${paused ? `, ${count(paused)} paused` : ''}`;
}

/** What is set of a queue, in words; nothing where all is as usual. */
export function ruleWords({ concurrency, key_concurrency = 1, user_concurrency, rate, fair_by = 'none', ageing_ms, retain_ms, retain_count, retain_bytes }) {
  return [
    concurrency !== undefined && `at most ${count(concurrency)} at once`,
    user_concurrency !== undefined && `${count(user_concurrency)} a user`,
    key_concurrency !== 1 && `${count(key_concurrency)} a key`,
    rate && rateWords(rate),
    fair_by !== 'none' && `in turn between ${fair_by === 'user' ? 'users' : 'keys'}`,
    ageing_ms !== undefined && `one priority for each ${short(ageing_ms)} of waiting`,
    retain_ms !== undefined && `finished tasks kept for ${span(retain_ms)}`,
    retain_count !== undefined && `the newest ${count(retain_count)} finished kept`,
    retain_bytes !== undefined && `${count(retain_bytes)} bytes of finished tasks kept`,
  ].filter(Boolean).join(', ');
}

function rateWords({ limit, per_ms, by }) {
  const whose = { key: ' for each key', user: ' for each user' }[by] ?? '';
  return `at most ${count(limit)} handed out in any ${span(per_ms)}${whose}`;
}

/** What stands in it. */
export function standsWords({ waiting = 0, scheduled = 0, pending = 0, running = 0 }) {
  const words = [[running, 'running'], [pending, 'ready'], [scheduled, 'scheduled'], [waiting, 'waiting']];
  return words.filter(([n]) => n).map(([n, word]) => `${count(n)} ${word}`).join(', ') || 'nothing unfinished';
}

function queueRow({ hub, announce, refresh }) {
  const name = h('strong');
  const state = h('span');
  const rules = h('div', { class: 'rules' });
  const stands = h('a');
  const pause = h('button', { type: 'button', onclick: toggle });
  const trouble = h('p', { class: 'trouble', role: 'alert' });
  const element = h('li', {}, h('div', { class: 'who' }, name, state), rules, stands, h('div', { class: 'doing', 'data-needs': 'change_settings' }, pause, trouble));
  let queue;

  async function toggle() {
    pause.disabled = true;
    setText(trouble, '');
    try {
      queue = queue.paused ? await hub.resumeQueue(queue.name) : await hub.pauseQueue(queue.name);
      announce(`${queue.name} ${queue.paused ? 'is paused' : 'goes on'}`);
      draw();
    } catch (error) {
      setText(trouble, complaint(error));
    }
    pause.disabled = false;
    refresh();
  }

  function draw() {
    setText(name, queue.name);
    name.title = queue.name;
    element.classList.toggle('paused', queue.paused);
    setText(state, queue.paused ? 'paused: nothing is handed out' : '');
    setText(rules, ruleWords(queue) || 'no limits');
    setText(stands, standsWords(queue.tasks));
    stands.href = `#/?queue=${encodeURIComponent(queue.name)}`;
    setText(pause, queue.paused ? 'Resume' : 'Pause');
    pause.setAttribute('aria-label', `${queue.paused ? 'Resume' : 'Pause'} ${queue.name}`);
  }

  return {
    element,
    update(next) {
      queue = next;
      draw();
    },
  };
}

function noQueue() {
  const element = h('li', { class: 'empty' },
    h('h2', {}, 'No queue is there'),
    h('p', {}, 'A queue is there while tasks stand in it, or something is set of it:'),
    h('pre', { tabIndex: 0 }, 'taskhub queue set mail --concurrency 8 --fair-by user'));
  return { element, update() {} };
}
