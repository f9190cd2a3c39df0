// The tasks of a workflow, as they go on: in the order in which they were given, each with those that it comes after.

import { Tasks, isFinal, select } from '../store.js';
import { atNextFrame, h, icon, setIcon, setText } from './dom.js';
import { keyed } from './pairs.js';
import { count, percentage, standing, title } from './words.js';

/** As many as the hub gives in one snapshot. */
const PARTS_MAX = 1_000;

/** Names said of those that a task comes after; of the rest, how many they are. */
const AFTER_MAX = 3;

/** Progress reports a second and task. */
const PROGRESS_HZ = 4;

export function partsView({ hub, task_id, now }) {
  const tasks = new Tasks();
  const said = h('span', { class: 'note' });
  const list = h('ol', { class: 'parts', tabIndex: 0, 'aria-label': 'Tasks of this workflow' });
  const setRows = keyed(list, (task) => task.task_id, row);
  const element = h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Tasks'), said), list);
  let before = new Map(); // task_id → those that it comes after
  let truncated = false;

  const draw = atNextFrame(() => {
    const { tasks: all } = select(tasks.values(), { order: 'created' });
    all.reverse(); // the oldest first, as they were given
    setRows(all);
    const ended = all.filter(isFinal).length;
    setText(said, truncated ? `the first ${count(all.length)}` : `${count(ended)} of ${count(all.length)} ended`);
  });

  function row() {
    const status = icon('pending');
    const ref = h('b', {});
    const what = h('span', {});
    const after = h('span', { class: 'follows' });
    const percent = h('span', { class: 'percent' });
    const stands = h('span', { class: 'standing' });
    const link = h('a', {}, status, h('span', { class: 'what' }, ref, what, after), percent, stands);
    const shown = h('li', {}, link);
    return {
      element: shown,
      update(task) {
        link.href = `#/task/${encodeURIComponent(task.task_id)}`;
        link.dataset.status = task.status;
        setIcon(status, task.status);
        setText(ref, task.ref ?? '');
        setText(what, title(task));
        setText(after, afterWords(before.get(task.task_id) ?? [], (id) => tasks.get(id)?.ref));
        const done = isFinal(task) ? undefined : percentage(task);
        setText(percent, done === undefined ? '' : `${Math.floor(done)}%`);
        const standing_now = standing(task, now()) || task.status;
        setText(stands, standing_now);
        stands.title = standing_now;
      },
    };
  }

  function told({ type, task, task_id: gone, tasks: more = [], truncated: cut, event }) {
    if (type === 'snapshot') {
      tasks.clear();
      truncated = cut;
    }
    if (type === 'gone' || (type === 'leave' && !event)) tasks.forget(gone ?? task.task_id);
    else for (const each of task ? [task] : more) tasks.apply(each);
    draw();
  }

  /** What comes after what never changes but where tasks are added. */
  async function fetchEdges() {
    const { edges } = await hub.workflow(task_id).catch(() => ({ edges: [] }));
    before = new Map();
    for (const [from, to] of edges) before.set(to, [...(before.get(to) ?? []), from]);
    draw();
  }

  fetchEdges();
  const subscription = hub.subscribe({ filter: { workflow_id: [task_id] }, snapshot: { limit: PARTS_MAX, order: 'asc' }, max_hz: PROGRESS_HZ }, told);
  const ticking = setInterval(() => !document.hidden && draw(), 1_000);

  return {
    element,
    close() {
      clearInterval(ticking);
      subscription.close();
    },
  };
}

/** Those that a task comes after, by their names. */
export function afterWords(ids, nameOf) {
  if (!ids.length) return '';
  const names = ids.slice(0, AFTER_MAX).map((id) => nameOf(id) ?? '…');
  const rest = ids.length - names.length;
  return `after ${names.join(', ')}${rest ? ` and ${count(rest)} more` : ''}`;
}
