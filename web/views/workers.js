// The connected workers: who they are, what they take, how busy they are. Asked for while it is looked at, every five
// seconds, since nobody pushes it; and not at all while the page is hidden or the hub is away.

import { h, icon } from './dom.js';
import { complaint, count, short, shortId } from './words.js';

const REFRESH_MS = 5_000;

export function workersView({ hub, now }) {
  const summary = h('p', { class: 'summary' });
  const list = h('ul', { class: 'workers' });
  const element = h('section', { class: 'page', hidden: true }, h('div', { class: 'title-line' }, h('h1', {}, 'Workers'), summary), list);
  let timer;
  let shown = false;

  async function refresh() {
    clearTimeout(timer);
    if (!shown) return;
    if (!document.hidden && hub.status === 'live') {
      try {
        draw(await hub.workers());
      } catch (error) {
        summary.textContent = `Could not be asked for: ${complaint(error)}`;
      }
    }
    clearTimeout(timer);
    timer = setTimeout(refresh, REFRESH_MS);
  }

  function draw(workers) {
    const slots = workers.reduce((sum, { concurrency }) => sum + concurrency, 0);
    const busy = workers.reduce((sum, { running }) => sum + running.length, 0);
    summary.textContent = workers.length ? `${count(workers.length)} connected, ${count(busy)} of ${count(slots)} places taken` : '';
    list.replaceChildren(...(workers.length ? workers.map(row) : [empty()]));
  }

  function row({ worker_id, task_types, queues, concurrency, running, connected_at, last_heard_at }) {
    const places = Array.from({ length: Math.min(concurrency, 64) }, (_, n) => h('i', { class: n < running.length ? 'taken' : '' }));
    return h('li', {},
      h('div', { class: 'who' },
        h('strong', { title: worker_id }, worker_id),
        h('span', {}, `connected for ${short(now() - Date.parse(connected_at))}, heard ${heard(now() - Date.parse(last_heard_at))}`)),
      h('dl', {},
        h('dt', {}, 'takes'), h('dd', {}, task_types?.length ? task_types.join(', ') : 'all types'),
        h('dt', {}, 'from'), h('dd', {}, queues?.length ? queues.join(', ') : 'default')),
      h('div', { class: 'busy' },
        h('span', { class: 'places', 'aria-hidden': 'true' }, places),
        h('span', {}, `${count(running.length)} of ${count(concurrency)} running`)),
      h('div', { class: 'runs' }, running.map(({ task_id }) => h('a', { href: `#/task/${encodeURIComponent(task_id)}`, title: task_id }, icon('running'), shortId(task_id)))));
  }

  const heard = (ms) => (ms < 2_000 ? 'just now' : `${short(ms)} ago`);

  const empty = () => h('li', { class: 'empty' },
    h('h2', {}, 'No worker is connected'),
    h('p', {}, 'Tasks wait until somebody takes them. Start a worker beside the hub:'),
    h('pre', {}, `taskhub worker --hub ${location.origin} --config worker.toml`),
    h('p', {}, 'or track any command as a task of its own:'),
    h('pre', {}, 'taskhub run --title "Nightly backup" -- ./backup.sh'));

  document.addEventListener('visibilitychange', refresh);
  hub.on('status', ({ status }) => status === 'live' && refresh());

  return {
    element,
    show() {
      shown = true;
      element.hidden = false;
      refresh();
    },
    hide() {
      shown = false;
      element.hidden = true;
      clearTimeout(timer);
    },
  };
}
