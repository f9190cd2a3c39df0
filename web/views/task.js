// One task: where it stands, what it says, how it came here, what went in and what came out; and the two things a
// person can do to it. The record is live; payload and history are fetched, history again after each transition.
//
// What is drawn is only what changed: whoever selects a text here, or stands on a link, keeps it.

import { indented, members } from '../json_text.js';
import { detailsText } from '../source.js';
import { Tasks, isFinal } from '../store.js';
import { atNextFrame, copyButton, h, icon, setIcon, setText, ticketed } from './dom.js';
import { logView } from './log.js';
import { definitions, keyed } from './pairs.js';
import { partsView } from './parts.js';
import { shareView } from './share.js';
import { bytes, callbacksWords, complaint, count, eventWord, moment, percentage, span, standing, taken, title, waitsWords } from './words.js';

/** Characters of JSON put on the page. More makes the page slow and is read by nobody. */
const JSON_CHARS_MAX = 100_000;

/** A second click within this time cancels. */
const SURE_MS = 4_000;

/** What could not be fetched is asked for again after this time. */
const AGAIN_MS = 5_000;

/** Between two questions why a task still waits, or whether its callbacks have arrived. */
const WAITS_MS = 5_000;

/** Tasks that it depends on, said one by one. */
const DEPENDENCIES_MAX = 20;

/** Ids looked through for a short one. */
const FOUND_MAX = 50;

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export function taskView({ hub, access, task_id, back, announce, retitle, now }) {
  const tasks = new Tasks();
  let gone = false;
  let full_rev = -1; // of the payload, outcome and history on the page
  let again_at = 0;
  let fetching = false;
  let waits = { rev: 0, reasons: [] };
  let asking_again;
  let depends_on = [];
  let owed = []; // to its callbacks
  let parts; // of a workflow

  const badge = h('span', { class: 'badge' }, icon('pending'), h('span'));
  const heading = h('h1', { tabIndex: -1 }, task_id);
  const description = h('p', { class: 'description' });
  const cancel = h('button', { type: 'button', 'data-needs': 'cancel', onclick: askCancel }, 'Cancel');
  const retry = h('button', { type: 'button', 'data-needs': 'retry', onclick: () => act('retry') }, 'Retry');
  const share = shareView({ hub, task_id, now });
  const trouble = h('p', { class: 'trouble', role: 'alert' });
  const unfetched = h('p', { class: 'trouble', role: 'alert' });
  const progress = progressPanel();
  const log = logView({ hub, task_id });
  const facts = h('dl', { class: 'facts' });
  const setFacts = definitions(facts);
  const timeline = h('ol', { class: 'timeline', tabIndex: 0, 'aria-label': 'Timeline' });
  const setTimeline = keyed(timeline, ({ rev }) => rev, transition);
  const payload = jsonPanel('Payload');
  const result = jsonPanel('Result');
  const error = errorPanel();
  const inner = h('div', { hidden: true });
  const body = h('div', { class: 'columns' },
    h('div', {}, progress.element, error.element, inner, result.element, log.element, payload.element),
    h('aside', { 'aria-label': 'About this task' },
      h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Task')), facts),
      h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Timeline')), timeline)));
  const element = h('section', { class: 'page task' },
    h('a', { class: 'back', href: back }, icon('back'), 'Tasks'),
    h('div', { class: 'title-line' }, h('div', { class: 'grow' }, heading, description), badge, h('div', { class: 'actions' }, retry, share.button, cancel)),
    trouble, unfetched, body, share.dialog);
  body.hidden = badge.hidden = share.button.hidden = cancel.hidden = retry.hidden = result.element.hidden = error.element.hidden = true;

  const draw = atNextFrame(() => {
    const task = tasks.get(task_id);
    const at = now();
    if (gone) return drawGone();
    if (!task) return setText(description, hub.status === 'live' || hub.status === 'connecting' ? '' : 'The hub is not there; this task is shown as soon as it is.');
    body.hidden = badge.hidden = share.button.hidden = false;
    setText(heading, title(task));
    setText(description, task.description ?? '');
    badge.className = `badge ${task.status}`;
    setIcon(badge.firstChild, task.status);
    setText(badge.lastChild, task.cancel_requested_at && !isFinal(task) ? 'stopping' : task.status);
    cancel.hidden = isFinal(task);
    cancel.disabled = !!task.cancel_requested_at;
    retry.hidden = !['failed', 'cancelled'].includes(task.status);
    if (task.workflow && !parts) {
      parts = partsView({ hub, task_id: task.task_id, now });
      inner.replaceChildren(parts.element);
      inner.hidden = false;
      log.element.hidden = payload.element.hidden = true; // no worker has it
    }
    progress.draw(task, at);
    drawFacts(task, at);
    if (full_rev < task.rev && at >= again_at) fetchRest(task.rev);
    retitle();
  });

  function drawGone() {
    body.hidden = badge.hidden = share.button.hidden = cancel.hidden = retry.hidden = true;
    setText(heading, 'There is no such task');
    setText(description, UUID.test(task_id)
      ? `No task has the id ${task_id} any more, or none that you may see. Tasks that ended are deleted after a while.`
      : `${task_id ? `“${task_id}” is` : 'That is'} no task’s id: those look like 0198f3a2-5c1e-7a3b-9c4d-1f2e3a4b5c6d. The address may have been cut.`);
    trouble.textContent = unfetched.textContent = '';
    retitle();
  }

  function drawFacts(task, at) {
    const link = (id) => h('a', { href: `#/task/${encodeURIComponent(id)}`, class: 'mono' }, id);
    const text = (name, says) => [name, says];
    const when = (name, moment_at) => [name, moment_at && moment(moment_at, at), () => h('time', { dateTime: moment_at, title: moment_at }, moment(moment_at, at))];
    const labels = Object.entries(task.labels ?? {});
    setFacts([
      text('Type', task.task_type),
      text('Queue', task.workflow ? undefined : task.queue),
      text('User', task.user_id),
      text('Worker', task.worker_id),
      text('Attempt', task.attempt ? `${task.attempt}${task.max_attempts > 1 ? `, try ${task.tries} of ${task.max_attempts}` : ''}` : undefined),
      text('Crashes', task.crashes ? `${task.crashes} of ${task.max_crashes}` : undefined),
      text('Priority', task.priority ? String(task.priority) : undefined),
      when('Created', task.created_at),
      when('To run at', task.status === 'scheduled' ? task.run_at : undefined),
      when('To start by', task.attempt || isFinal(task) ? undefined : task.start_by_at),
      when('To be done by', isFinal(task) ? undefined : task.deadline_at),
      when('Started', task.started_at),
      when('Asked to stop', task.cancel_requested_at),
      when('Finished', task.finished_at),
      text('Waits for', waits.rev === task.rev ? waitsWords(waits.reasons, at) : undefined),
      ['Parent', task.parent_id, () => link(task.parent_id)],
      ['Depends on', depends_on.join(), () => depends_on.slice(0, DEPENDENCIES_MAX).map((id) => h('div', {}, link(id))).concat(depends_on.length > DEPENDENCIES_MAX ? [`and ${count(depends_on.length - DEPENDENCIES_MAX)} more`] : [])],
      ['Workflow', task.workflow_id, () => link(task.workflow_id)],
      text('Called there', task.ref),
      text('When one fails', task.workflow && (task.workflow.on_failure === 'finish' ? 'the others go on' : 'what has not started is cancelled')),
      text('Callbacks', task.callbacks && callbacksWords(task.callbacks, owed)),
      text('Schedule', task.schedule),
      when('Due', task.due_at),
      ['Result', task.result_bytes === undefined ? undefined : `${bytes(task.result_bytes)}, ${task.result_type}${isFinal(task) ? '' : ', uploaded so far'}`, () => {
        const says = `${bytes(task.result_bytes)}, ${task.result_type}`;
        return isFinal(task) ? h('a', { href: hub.resultUrl(task_id), download: '', onclick: ticketed(hub) }, `Download (${says})`) : `${says}, uploaded so far`;
      }],
      ['Labels', labels.join(), () => labels.map(([key, value]) => h('div', {}, h('span', { class: 'key' }, key), ' ', value))],
      ['Id', task_id, () => h('span', { class: 'mono' }, task_id)],
    ].filter(([, says]) => says));
  }

  /** What events do not carry. One fetch at a time; if the task moved on meanwhile, another follows. */
  async function fetchRest(rev) {
    if (fetching) return;
    fetching = true;
    try {
      const told = tasks.get(task_id)?.callbacks && access.may('see_hub') ? hub.callbacks({ task_id }) : { callbacks: [] };
      const [text, transitions, { callbacks }] = await Promise.all([hub.getText(task_id), hub.history(task_id), told]);
      const record = JSON.parse(text);
      const texts = members(text);
      full_rev = Math.max(rev, record.rev);
      tasks.apply(record);
      waits = { rev: record.rev, reasons: record.waits_for ?? [] };
      depends_on = record.depends_on ?? [];
      owed = callbacks;
      setTimeline(transitions.map((each, n) => ({ ...each, before: transitions[n - 1] })));
      const hides = (part) => access.hides(part) || !!record.hidden?.includes(part);
      payload.draw(texts.get('payload') ?? 'none');
      payload.element.hidden ||= hides('payload');
      log.element.hidden ||= hides('logs');
      const failure = record.error ? 'error' : !isFinal(record) && record.last_error ? 'last_error' : undefined;
      error.element.hidden = !failure;
      if (failure) error.draw(failure === 'error' ? 'Error' : 'Why the last try failed', record[failure], members(texts.get(failure)).get('details'));
      result.element.hidden = !!failure || !texts.has('result') || hides('result');
      if (texts.has('result')) result.draw(texts.get('result'));
      unfetched.textContent = '';
    } catch (error) {
      again_at = now() + AGAIN_MS;
      if (error.code !== 'task_not_found' && hub.status === 'live') unfetched.textContent = `Payload and timeline could not be fetched: ${complaint(error)}`;
    } finally {
      fetching = false;
      draw();
      clearTimeout(asking_again);
      if (waits.reasons.length || owed.some(({ status }) => status === 'pending')) asking_again = setTimeout(askAgain, WAITS_MS);
    }
  }

  /** Nobody says when its turn comes nearer, or that a callback arrived: that is asked for, while somebody looks. */
  function askAgain() {
    const task = tasks.get(task_id);
    if (!element.isConnected || !task || waits.rev !== task.rev) return;
    if (document.hidden || hub.status !== 'live') asking_again = setTimeout(askAgain, WAITS_MS);
    else fetchRest(task.rev);
  }

  function transition({ at, before, event, status, attempt, worker_id, note }) {
    const since_ms = before && Date.parse(at) - Date.parse(before.at);
    const where = [event === 'task.running' && attempt && `attempt ${attempt}`, worker_id && `on ${worker_id}`].filter(Boolean).join(' ');
    const element = h('li', {}, icon(status),
      h('div', {}, h('b', {}, eventWord(event)), where && h('span', {}, ` ${where}`), note && h('p', {}, note)),
      h('time', { dateTime: at, title: at }, since_ms === undefined ? moment(at, now()) : `+${span(since_ms)}`));
    return { element, update() {} };
  }

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
      if (event.code !== 'closed') trouble.textContent = `The hub refused to show this task: ${complaint(event)}`;
      return;
    }
    if (event.type === 'snapshot') {
      tasks.clear();
      full_rev = -1;
    }
    gone = event.type === 'gone' || (event.type === 'snapshot' && !event.tasks.length);
    const task = event.task ?? event.tasks?.[0];
    if (task) tasks.apply(task);
    if (event.type === 'task') {
      trouble.textContent = ''; // what could not be done to it then may be possible now, or is not wanted any more
      announce(`${title(task)}: ${eventWord(event.event)}`);
    }
    draw();
  }

  /** The list shows the ends of ids, and people copy them. */
  async function lookUp() {
    gone = true;
    draw();
    if (!/^[0-9a-f-]{6,35}$/i.test(task_id)) return;
    const { tasks: found } = await hub.list({ q: task_id, limit: FOUND_MAX }).catch(() => ({ tasks: [] }));
    const ids = found.map((task) => task.task_id).filter((id) => id.endsWith(task_id.toLowerCase()) || id.startsWith(task_id.toLowerCase()));
    if (ids.length === 1 && element.isConnected) location.replace(`#/task/${ids[0]}`);
  }

  const is_id = UUID.test(task_id);
  const subscription = is_id ? hub.subscribe({ filter: { task_id: [task_id.toLowerCase()] }, snapshot: { limit: 1 }, logs: access.hides('logs') ? undefined : { tail: 1_000 } }, told) : lookUp();
  const ticking = setInterval(() => !document.hidden && draw(), 1_000);
  const off = hub.on('status', ({ status }) => {
    if (status === 'live') {
      trouble.textContent = unfetched.textContent = ''; // they are from before
      again_at = 0;
    }
    draw();
  });

  return {
    element,
    focus: () => heading.focus({ preventScroll: true }),

    /** What the tab is called. */
    title() {
      const task = tasks.get(task_id);
      if (gone) return 'No such task';
      if (!task) return task_id;
      const percent = task.status === 'running' ? percentage(task) : undefined;
      return `${title(task)} · ${percent === undefined ? task.status : `${Math.floor(percent)}%`}`;
    },

    close() {
      clearTimeout(asking_again);
      clearInterval(ticking);
      off();
      if (is_id) subscription.close();
      parts?.close();
      element.remove();
    },
  };
}

/** How far it is. */
function progressPanel() {
  const percent = h('strong');
  const step = h('span', { class: 'step' });
  const when = h('span', { class: 'when' });
  const bar = h('i');
  const track = h('div', { class: 'bar', role: 'progressbar', 'aria-valuemin': '0', 'aria-valuemax': '100', 'aria-label': 'Progress' }, bar);
  const counters = h('dl', { class: 'counters' });
  const setCounters = definitions(counters);
  const details = h('pre', { class: 'details', role: 'group', tabIndex: 0, 'aria-label': 'Details' });
  const element = h('section', { class: 'panel progress' }, h('div', { class: 'large' }, percent, step, when), track, counters, details);

  return {
    element,

    draw(task, at) {
      const { progress: said = {} } = task;
      const done = percentage(task);
      const eta_ms = task.status === 'running' ? said.eta_ms : undefined;
      const stands = standing(task, at);
      const lasts = taken(task, at);
      const words = [said.step, said.message].filter(Boolean).join(' · ') || (task.status === 'failed' || stands === lasts ? '' : stands);
      element.hidden = !task.progress && !lasts && !stands;
      element.dataset.status = task.status;
      percent.hidden = track.hidden = done === undefined;
      if (done !== undefined) {
        setText(percent, `${done.toFixed(done === Math.floor(done) ? 0 : 1)}%`);
        bar.style.transform = `scaleX(${done / 100})`;
        track.setAttribute('aria-valuenow', String(Math.floor(done)));
      }
      setText(step, words);
      setText(when, [
        said.total === undefined ? said.current !== undefined && count(said.current) : `${count(said.current ?? 0)} of ${count(said.total)}`,
        eta_ms !== undefined && `about ${span(Math.ceil(eta_ms / 1_000) * 1_000).replace('.0 s', ' s')} left`,
        lasts,
      ].filter(Boolean).join(' · '));
      setCounters(Object.entries(said.counters ?? {}).map(([name, n]) => [name, count(n)]));
      counters.hidden = !said.counters;
      details.hidden = said.details === undefined;
      if (said.details !== undefined) setText(details, cut(indented(detailsText(said))));
    },
  };
}

/** A JSON text as the hub keeps it, laid out over lines; what is copied is the text itself. */
function jsonPanel(name) {
  const size = h('span', { class: 'note' });
  const pre = h('pre', { role: 'group', tabIndex: 0, 'aria-label': name });
  let said;
  const copy = copyButton(() => said);
  return {
    element: h('section', { class: 'panel json' }, h('header', {}, h('h2', {}, name), size, copy), pre),
    draw(text) {
      if (text === said) return;
      said = text;
      const is_small = ['none', 'null', '{}', '[]'].includes(text);
      setText(size, is_small ? '' : bytes(new Blob([text]).size));
      copy.hidden = is_small;
      setText(pre, cut(indented(text)));
    },
  };
}

function errorPanel() {
  const heading = h('h2');
  const kind = h('span', { class: 'note' });
  const message = h('pre', { role: 'group', tabIndex: 0, 'aria-label': 'Message' });
  const details = h('pre', { class: 'details', role: 'group', tabIndex: 0, 'aria-label': 'Details' });
  let said;
  let details_text;
  const copyDetails = copyButton(() => details_text, 'Copy details');
  return {
    element: h('section', { class: 'panel json error' }, h('header', {}, heading, kind, copyDetails, copyButton(() => said)), message, details),
    draw(name, failure, text) {
      said = failure.message ?? failure.kind ?? '';
      details_text = text;
      setText(heading, name);
      setText(kind, failure.kind ?? '');
      setText(message, cut(failure.message ?? 'no message'));
      details.hidden = copyDetails.hidden = text === undefined;
      if (text !== undefined) setText(details, cut(indented(text)));
    },
  };
}

const cut = (text) => (text.length <= JSON_CHARS_MAX ? text : `${text.slice(0, JSON_CHARS_MAX)}\n… ${count(text.length - JSON_CHARS_MAX)} more characters`);
