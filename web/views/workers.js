// The connected workers: who they are, what they take, how busy they are. Asked for while it is looked at, every five
// seconds, since nobody pushes it; and not at all while the page is hidden or the hub is away.

import { h, icon } from './dom.js';
import { complaint, count, percentage, short, shortId, title } from './words.js';

const REFRESH_MS = 5_000;

/** Running tasks named; the hub looks up no more ids in one call. */
const NAMED_MAX = 100;

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
        const workers = await hub.workers();
        draw(workers, await tasksOf(workers));
      } catch (error) {
        summary.textContent = `Could not be asked for: ${complaint(error)}`;
      }
    }
    clearTimeout(timer);
    timer = setTimeout(refresh, REFRESH_MS);
  }

  /** The records of what they run, for the titles. */
  async function tasksOf(workers) {
    const task_id = workers.flatMap(({ running }) => running.map((each) => each.task_id)).slice(0, NAMED_MAX);
    const { tasks } = task_id.length ? await hub.list({ task_id, limit: NAMED_MAX }) : { tasks: [] };
    return new Map(tasks.map((task) => [task.task_id, task]));
  }

  function draw(workers, tasks) {
    const slots = workers.reduce((sum, { concurrency }) => sum + concurrency, 0);
    const busy = workers.reduce((sum, { running }) => sum + running.length, 0);
    summary.textContent = workers.length ? `${count(workers.length)} connected, ${count(busy)} of ${count(slots)} places taken` : '';
    list.replaceChildren(...(workers.length ? workers.map((worker) => row(worker, tasks)) : [empty()]));
  }

  function row({ worker_id, task_types, queues, concurrency, running, connected_at, last_heard_at }, tasks) {
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
      h('div', { class: 'runs' }, running.slice(0, NAMED_MAX).map(({ task_id }) => run(task_id, tasks.get(task_id)))));
  }

  function run(task_id, task) {
    const percent = task && percentage(task);
    return h('a', { href: `#/task/${encodeURIComponent(task_id)}`, title: task_id }, icon('running'),
      h('span', {}, task ? title(task) : shortId(task_id)), percent === undefined ? undefined : h('b', {}, `${Math.floor(percent)}%`));
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
