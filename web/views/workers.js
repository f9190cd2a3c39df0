// The workers: who they are, what they take, how busy they are. Asked for while it is looked at, every five seconds, since
// nobody pushes it; and not at all while the page is hidden or the hub is away. Then it says from when it is.

import { askedView } from './asked.js';
import { h, icon, setText } from './dom.js';
import { keyed } from './pairs.js';
import { complaint, count, percentage, short, shortId, title } from './words.js';

const REFRESH_MS = 5_000;

/** Running tasks named; the hub looks up no more ids in one call. */
const NAMED_MAX = 100;

/** Places drawn as squares; of more the number says it. */
const PLACES_MAX = 64;

const EMPTY = { worker_id: undefined };

export function workersView({ hub, now }) {
  const list = h('ul', { class: 'workers' });
  const setRows = keyed(list, ({ worker_id }) => worker_id, (worker) => (worker === EMPTY ? noWorker() : workerRow(now)));

  async function ask() {
    const workers = await hub.workers();
    const tasks = await tasksOf(workers);
    setRows(workers.length ? workers.map((worker) => ({ ...worker, tasks })) : [EMPTY]);
    return summaryOf(workers);
  }

  /** The records of what they run, for the titles. */
  async function tasksOf(workers) {
    const task_id = workers.flatMap(({ running }) => running.map((each) => each.task_id)).slice(0, NAMED_MAX);
    const { tasks } = task_id.length ? await hub.list({ task_id, limit: NAMED_MAX }) : { tasks: [] };
    return new Map(tasks.map((task) => [task.task_id, task]));
  }

  return askedView({ hub, now, name: 'Workers', list, refresh_ms: REFRESH_MS, ask });
}

/** How many there are and how busy. Places are counted where every worker said how many it has. */
export function summaryOf(workers) {
  if (!workers.length) return '';
  const away = workers.filter(({ link }) => link === 'away').length;
  const busy = workers.reduce((sum, { running }) => sum + running.length, 0);
  const places = workers.reduce((sum, worker) => sum + placesOf(worker), 0);
  const who = `${count(workers.length)} ${workers.length === 1 ? 'worker' : 'workers'}${away ? ` (${count(away)} just left and may come back)` : ''}`;
  return workers.every(({ link }) => link === 'socket')
    ? `${who}, ${count(busy)} of ${count(places)} places taken`
    : `${who}, ${count(busy)} ${busy === 1 ? 'task' : 'tasks'} running`;
}

/** One that came back with more than it takes now has as many places as it runs, for the moment. */
const placesOf = ({ concurrency, running }) => Math.max(concurrency, running.length);

/** How busy one is, and how many places are stuck in attempts that were taken from it. Over HTTP a worker claims what it wants, and nobody knows how much that will be. */
export function busyOf(worker) {
  const { link, concurrency, running, stuck = [] } = worker;
  const n = count(running.length);
  const lost = stuck.length ? `, ${count(stuck.length)} stuck` : '';
  if (link === 'socket') return `${n} of ${count(placesOf(worker))} running${lost}`;
  const asked = concurrency - running.length;
  return `${n} running${link === 'http' && asked > 0 ? `, asks for ${count(asked)} more` : ''}${lost}`;
}

/** How it is connected, and since when. */
export function presenceOf({ link, draining, connected_at, last_heard_at }, now) {
  const since = short(Math.max(0, now - Date.parse(connected_at)));
  const heard_ms = now - Date.parse(last_heard_at);
  const heard = heard_ms < 2_000 ? 'just now' : `${short(heard_ms)} ago`;
  const how = link === 'away' ? 'connection lost' : link === 'http' ? `over HTTP for ${since}` : `connected for ${since}`;
  return [how, `heard ${heard}`, draining && 'takes no more'].filter(Boolean).join(', ').replace('for now', 'just now');
}

function workerRow(now) {
  const name = h('strong');
  const presence = h('span');
  const types = h('dd');
  const queues = h('dd');
  const squares = h('span', { class: 'places', 'aria-hidden': 'true' });
  const busy = h('span');
  const runs = h('div', { class: 'runs' });
  const setRuns = keyed(runs, ({ task_id }) => task_id, runLink);
  const element = h('li', {},
    h('div', { class: 'who' }, name, presence),
    h('dl', {}, h('div', {}, h('dt', {}, 'takes'), types), h('div', {}, h('dt', {}, 'from'), queues)),
    h('div', { class: 'busy' }, squares, busy),
    runs);

  return {
    element,
    update(worker) {
      const { worker_id, task_types, queues: from, running, tasks } = worker;
      setText(name, worker_id);
      name.title = worker_id;
      setText(presence, presenceOf(worker, now()));
      setText(types, !task_types?.length || task_types.includes('*') ? 'all types' : task_types.join(', '));
      setText(queues, from?.includes('*') ? 'all queues' : from?.length ? from.join(', ') : 'default');
      const wanted = Math.min(placesOf(worker), PLACES_MAX);
      while (squares.childElementCount > wanted) squares.lastChild.remove();
      while (squares.childElementCount < wanted) squares.append(h('i'));
      [...squares.children].forEach((square, n) => square.classList.toggle('taken', n < running.length));
      setText(busy, busyOf(worker));
      setRuns(running.slice(0, NAMED_MAX).map(({ task_id }) => ({ task_id, task: tasks.get(task_id) })));
    },
  };
}

function runLink({ task_id }) {
  const name = h('span');
  const percent = h('b');
  const element = h('a', { href: `#/task/${encodeURIComponent(task_id)}`, title: task_id }, icon('running'), name, percent);
  return {
    element,
    update({ task }) {
      const done = task && percentage(task);
      setText(name, task ? title(task) : shortId(task_id));
      setText(percent, done === undefined ? '' : `${Math.floor(done)}%`);
    },
  };
}

function noWorker() {
  const element = h('li', { class: 'empty' },
    h('h2', {}, 'No worker is there'),
    h('p', {}, 'Tasks wait until somebody takes them. Start a worker beside the hub:'),
    h('pre', { tabIndex: 0 }, `taskhub worker --hub ${new URL('.', location.href).href.replace(/\/$/, '')} --config worker.toml`),
    h('p', {}, 'or track any command as a task of its own:'),
    h('pre', { tabIndex: 0 }, 'taskhub run --title "Nightly backup" -- ./backup.sh'));
  return { element, update() {} };
}
