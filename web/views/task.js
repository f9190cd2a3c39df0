// One task: where it stands, what it says, how it came here, what went in and what came out; and the two things a
// person can do to it. The record is live; payload and history are fetched, history again after each transition.

import { Tasks, isFinal } from '../store.js';
import { atNextFrame, copyButton, h, icon, setIcon, setText } from './dom.js';
import { logView } from './log.js';
import { bytes, complaint, count, eventWord, moment, percentage, span, standing, title } from './words.js';

/** Characters of JSON put on the page. More makes the page slow and is read by nobody. */
const JSON_CHARS_MAX = 100_000;

/** A second click within this time cancels. */
const SURE_MS = 4_000;

export function taskView({ hub, task_id, back, announce, now }) {
  const tasks = new Tasks();
  let gone = false;
  let full; // the record with payload, result and error
  let full_rev = -1;
  let subscription;
  let fetching = false;

  const badge = h('span', { class: 'badge' }, icon('pending'), h('span'));
  const heading = h('h1', { tabIndex: -1 });
  const description = h('p', { class: 'description' });
  const cancel = h('button', { type: 'button', onclick: askCancel }, 'Cancel');
  const retry = h('button', { type: 'button', onclick: () => act('retry') }, 'Retry');
  const trouble = h('p', { class: 'trouble', role: 'alert' });
  const progress = h('section', { class: 'panel progress' });
  const log = logView({ task_id });
  const facts = h('dl', { class: 'facts' });
  const timeline = h('ol', { class: 'timeline' });
  const payload = h('section', { class: 'panel json' });
  const outcome = h('section', { class: 'panel json', hidden: true });
  const body = h('div', { class: 'columns' },
    h('div', {}, progress, outcome, log.element, payload),
    h('aside', {}, h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Task')), facts), h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Timeline')), timeline)));
  const element = h('section', { class: 'page task' },
    h('a', { class: 'back', href: back }, icon('back'), 'Tasks'),
    h('div', { class: 'title-line' }, h('div', { class: 'grow' }, heading, description), badge, h('div', { class: 'actions' }, retry, cancel)),
    trouble, body);
  heading.textContent = task_id;
  body.hidden = badge.hidden = true;
  cancel.hidden = retry.hidden = true;

  const draw = atNextFrame(() => {
    const task = tasks.get(task_id);
    const at = now();
    if (gone) return drawGone();
    if (!task) return;
    body.hidden = badge.hidden = false;
    heading.textContent = title(task);
    setText(description, task.description ?? '');
    badge.className = `badge ${task.status}`;
    setIcon(badge.firstChild, task.status);
    setText(badge.lastChild, task.cancel_requested_at && !isFinal(task) ? 'stopping' : task.status);
    cancel.hidden = isFinal(task);
    cancel.disabled = !!task.cancel_requested_at;
    retry.hidden = !['failed', 'cancelled'].includes(task.status);
    drawProgress(task, at);
    drawFacts(task, at);
    if (full_rev < task.rev) fetchRest(task.rev);
  });

  function drawGone() {
    body.hidden = badge.hidden = cancel.hidden = retry.hidden = true;
    heading.textContent = 'This task is not there';
    description.textContent = `It was deleted after its retention, or is not yours to see, or never was: ${task_id}`;
  }

  function drawProgress(task, at) {
    const { progress: said = {} } = task;
    const percent = percentage(task);
    const eta_ms = task.status === 'running' ? said.eta_ms : undefined;
    const parts = [
      said.total === undefined ? said.current !== undefined && count(said.current) : `${count(said.current ?? 0)} of ${count(said.total)}`,
      eta_ms !== undefined && `about ${span(Math.ceil(eta_ms / 1_000) * 1_000).replace('.0 s', ' s')} left`,
      task.started_at && `${task.status === 'running' ? 'running for' : 'took'} ${span((task.finished_at && task.status !== 'running' ? Date.parse(task.finished_at) : at) - Date.parse(task.started_at))}`,
    ].filter(Boolean);
    const bar = h('i');
    bar.style.transform = `scaleX(${(percent ?? 0) / 100})`;
    progress.hidden = !task.progress && !task.started_at && !standing(task, at);
    progress.dataset.status = task.status;
    progress.replaceChildren(
      h('div', { class: 'large' },
        percent === undefined ? undefined : h('strong', {}, `${percent.toFixed(percent === Math.floor(percent) ? 0 : 1)}%`),
        h('span', { class: 'step' }, [said.step, said.message].filter(Boolean).join(' · ') || (percent === undefined && task.status !== 'failed' ? standing(task, at) : '')),
        h('span', { class: 'when' }, parts.join(' · '))),
      ...(percent === undefined ? [] : [h('div', { class: 'bar', role: 'progressbar', 'aria-valuenow': String(Math.floor(percent)), 'aria-valuemin': '0', 'aria-valuemax': '100', 'aria-label': 'Progress' }, bar)]),
      ...(said.counters ? [h('dl', { class: 'counters' }, Object.entries(said.counters).map(([name, n]) => h('div', { class: name }, h('dt', {}, name), h('dd', {}, count(n)))))] : []),
      ...(said.details ? [h('pre', { class: 'details' }, cut(JSON.stringify(said.details, null, 2)))] : []));
  }

  function drawFacts(task, at) {
    const link = (id) => h('a', { href: `#/task/${encodeURIComponent(id)}`, class: 'mono' }, id);
    const when = (moment_at) => moment_at && h('time', { dateTime: moment_at, title: moment_at }, moment(moment_at, at));
    const rows = {
      Type: task.task_type,
      Queue: task.queue,
      User: task.user_id,
      Worker: task.worker_id,
      Attempt: task.attempt ? `${task.attempt}${task.max_attempts > 1 ? `, try ${task.tries} of ${task.max_attempts}` : ''}` : undefined,
      Crashes: task.crashes ? `${task.crashes} of ${task.max_crashes}` : undefined,
      Priority: task.priority ? String(task.priority) : undefined,
      Created: when(task.created_at),
      'To run at': task.status === 'scheduled' ? when(task.run_at) : undefined,
      Started: when(task.started_at),
      'Asked to stop': when(task.cancel_requested_at),
      Finished: when(task.finished_at),
      'Waits for': task.depends_on?.map(link),
      Parent: task.parent_id && link(task.parent_id),
      Workflow: task.workflow_id,
      Labels: Object.entries(task.labels ?? {}).map(([key, value]) => h('div', {}, h('span', { class: 'key' }, key), ' ', value)),
      Id: h('span', { class: 'mono' }, task_id),
    };
    const shown = Object.entries(rows).filter(([, value]) => value?.length !== 0 && value);
    facts.replaceChildren(...shown.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
  }

  /** What events do not carry. One fetch at a time; if the task moved on meanwhile, another follows. */
  async function fetchRest(rev) {
    if (fetching) return;
    fetching = true;
    try {
      const [record, transitions] = await Promise.all([hub.get(task_id), hub.history(task_id)]);
      full = record;
      full_rev = Math.max(rev, record.rev);
      tasks.apply(record);
      drawTimeline(transitions);
      drawJson(payload, 'Payload', full.payload);
      outcome.hidden = full.result === undefined && !full.error;
      if (full.error) drawError(full.error);
      else if (full.result !== undefined) drawJson(outcome, 'Result', full.result);
    } catch (error) {
      full_rev = rev; // not again before the task moves, or the page is opened again
      if (error.code !== 'task_not_found') trouble.textContent = `Payload and timeline could not be fetched: ${complaint(error)}`;
    } finally {
      fetching = false;
      draw();
    }
  }

  function drawTimeline(transitions) {
    timeline.replaceChildren(...transitions.map(({ at, event, status, attempt, worker_id, note }, n) => {
      const since_ms = n ? Date.parse(at) - Date.parse(transitions[n - 1].at) : undefined;
      const where = [event === 'task.running' && `attempt ${attempt}`, worker_id && `on ${worker_id}`].filter(Boolean).join(' ');
      return h('li', {}, icon(status),
        h('div', {}, h('b', {}, eventWord(event)), where && h('span', {}, ` ${where}`), note && h('p', {}, note)),
        h('time', { dateTime: at, title: at }, since_ms === undefined ? moment(at, now()) : `+${span(since_ms)}`));
    }));
  }

  function drawJson(panel, name, value) {
    const text = JSON.stringify(value, null, 2) ?? 'null';
    const small = value === undefined || value === null || (typeof value === 'object' && !Object.keys(value).length);
    panel.replaceChildren(
      h('header', {}, h('h2', {}, name), h('span', { class: 'note' }, small ? '' : bytes(new Blob([JSON.stringify(value)]).size)), small ? undefined : copyButton(text)),
      h('pre', {}, value === undefined ? 'none' : cut(text)));
  }

  function drawError({ kind, message, details }) {
    outcome.className = 'panel json error';
    outcome.replaceChildren(
      h('header', {}, h('h2', {}, 'Error'), h('span', { class: 'note' }, kind ?? ''), copyButton(message ?? kind ?? '')),
      h('pre', {}, cut(message ?? 'no message')),
      ...(details === undefined ? [] : [h('pre', { class: 'details' }, cut(JSON.stringify(details, null, 2)))]));
  }

  const cut = (text) => (text.length <= JSON_CHARS_MAX ? text : `${text.slice(0, JSON_CHARS_MAX)}\n… ${count(text.length - JSON_CHARS_MAX)} more characters`);

  function askCancel() {
    if (cancel.dataset.sure) return act('cancel');
    cancel.dataset.sure = 'yes';
    cancel.textContent = 'Really cancel?';
    setTimeout(() => {
      delete cancel.dataset.sure;
      cancel.textContent = 'Cancel';
    }, SURE_MS);
  }

  async function act(what) {
    trouble.textContent = '';
    cancel.disabled = retry.disabled = true;
    try {
      const record = await hub[what](task_id);
      if (record?.task_id) tasks.apply(record);
    } catch (error) {
      trouble.textContent = `Could not ${what}: ${complaint(error)}`;
    } finally {
      cancel.disabled = retry.disabled = false;
      draw();
    }
  }

  function told(event) {
    if (event.type === 'log') return log.add(event.lines);
    if (event.type === 'error') {
      trouble.textContent = `The hub refused to show this task: ${complaint(event)}`;
      return;
    }
    if (event.type === 'snapshot') {
      tasks.clear();
      full_rev = -1;
    }
    gone = event.type === 'gone' || (event.type === 'snapshot' && !event.tasks.length);
    const task = event.task ?? event.tasks?.[0];
    if (task) tasks.apply(task);
    if (event.type === 'task') announce(`${title(task)}: ${eventWord(event.event)}`);
    draw();
  }

  subscription = hub.subscribe({ filter: { task_id: [task_id] }, snapshot: { limit: 1 }, logs: { tail: 1_000 } }, told);
  const ticking = setInterval(() => tasks.get(task_id)?.status !== 'completed' && !document.hidden && draw(), 1_000);

  return {
    element,
    focus: () => heading.focus({ preventScroll: true }),
    close() {
      clearInterval(ticking);
      subscription.close();
      element.remove();
    },
  };
}
