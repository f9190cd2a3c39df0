// The schedules: when each is due, how its last task does, and whether it is paused. Asked for while it is looked at, every
// three seconds and when something of them changes; and not at all while the page is hidden or the hub is away. Then it says
// from when it is.

import { askedView } from './asked.js';
import { h, setText } from './dom.js';
import { keyed } from './pairs.js';
import { complaint, count, moment, span } from './words.js';

const REFRESH_MS = 3_000;
/** More are not shown. */
const SHOWN_MAX = 200;

const EMPTY = { name: undefined };

export function schedulesView({ hub, announce, now }) {
  const list = h('ul', { class: 'workers queues schedules' });
  const setRows = keyed(list, ({ name }) => name, (schedule) => (schedule === EMPTY ? noSchedule() : scheduleRow({ hub, announce, refresh: () => view.refresh(), now })));

  async function ask() {
    const { schedules, next_cursor } = await hub.schedules({ limit: SHOWN_MAX });
    setRows(schedules.length ? schedules : [EMPTY]);
    return summaryOf(schedules, !!next_cursor);
  }

  const view = askedView({ hub, now, name: 'Schedules', list, refresh_ms: REFRESH_MS, ask, listen: (changed) => hub.settings(changed) });
  return view;
}

/** How many there are, and how many are paused. */
export function summaryOf(schedules, more = false) {
  if (!schedules.length) return '';
  if (more) return `The first ${count(schedules.length)} schedules, by name`;
  const paused = schedules.filter((schedule) => schedule.paused).length;
  return `${count(schedules.length)} ${schedules.length === 1 ? 'schedule' : 'schedules'}${paused ? `, ${count(paused)} paused` : ''}`;
}

const OVERLAPS = {
  skip: 'not beside another',
  queue: 'one at a time',
  replace: 'in place of the one before',
};

/** When it is due: so often in words, or its pattern and the zone whose clocks it is about; and what of others of it. */
export function whenWords({ cron, every_ms, time_zone = 'UTC', start_at, end_at, overlap }, now) {
  const words = [cron === undefined ? `every ${span(every_ms).replace('.0 ', ' ')}` : `${cron}, ${time_zone}`];
  if (start_at && Date.parse(start_at) > now) words.push(`from ${moment(start_at, now)} on`);
  if (end_at) words.push(`until ${moment(end_at, now)}`);
  if (OVERLAPS[overlap]) words.push(OVERLAPS[overlap]);
  return words.join(', ');
}

const PAUSED_BY = {
  token_revoked: 'the token of who made it was revoked',
  token_expired: 'the token of who made it has expired',
};

/** When it is due next, or why it is not. */
export function nextWords({ paused, paused_reason, next = [] }, now) {
  if (paused) return `paused: ${paused_reason ? (PAUSED_BY[paused_reason] ?? paused_reason.replaceAll('_', ' ')) : 'nothing is submitted'}`;
  if (!next.length) return 'not due any more';
  const left = Date.parse(next[0]) - now;
  return `next ${moment(next[0], now)}, ${left > 0 ? `in ${span(left).replace('.0 ', ' ')}` : 'now'}`;
}

const REASONS = {
  missed: 'the hub was not there',
  overlap: 'the task before it was not done',
  conflict: 'tasks with its key were there',
  quota_exceeded: 'its user may have no more',
};

/** The due time that was passed over since the last task, and why. */
export function skippedWords({ last, skipped }, now) {
  if (!skipped || Date.parse(last?.due_at ?? 0) > Date.parse(skipped.due_at)) return '';
  return `${moment(skipped.due_at, now)} was passed over: ${REASONS[skipped.reason] ?? skipped.reason.replaceAll('_', ' ')}`;
}

function scheduleRow({ hub, announce, refresh, now }) {
  const name = h('strong');
  const state = h('span');
  const when = h('div', { class: 'rules' });
  const last = h('a');
  const skipped = h('div', { class: 'skipped' });
  const did = h('div', {}, last, skipped);
  const run = h('button', { type: 'button', onclick: () => ask(runNow) }, 'Run now');
  const pause = h('button', { type: 'button', onclick: () => ask(toggle) });
  const trouble = h('p', { class: 'trouble', role: 'alert' });
  const buttons = h('div', { class: 'buttons' }, run, pause);
  const element = h('li', {}, h('div', { class: 'who' }, name, state), when, did, h('div', { class: 'doing', 'data-needs': 'change_settings' }, buttons, trouble));
  let schedule;

  async function ask(what) {
    run.disabled = pause.disabled = true;
    setText(trouble, '');
    try {
      await what();
    } catch (error) {
      setText(trouble, complaint(error));
    }
    run.disabled = pause.disabled = false;
    refresh();
  }

  async function runNow() {
    await hub.runSchedule(schedule.name);
    announce(`A task of ${schedule.name} is submitted`);
  }

  async function toggle() {
    schedule = schedule.paused ? await hub.resumeSchedule(schedule.name) : await hub.pauseSchedule(schedule.name);
    announce(`${schedule.name} ${schedule.paused ? 'is paused' : 'goes on'}`);
    draw();
  }

  function draw() {
    const { paused } = schedule;
    setText(name, schedule.name);
    name.title = schedule.name;
    element.classList.toggle('paused', paused);
    setText(state, nextWords(schedule, now()));
    setText(when, whenWords(schedule, now()));
    last.hidden = !schedule.last;
    if (schedule.last) {
      setText(last, `last ${schedule.last.status ?? 'task is deleted'}${schedule.last.due_at ? '' : ', by hand'}`);
      last.href = `#/task/${encodeURIComponent(schedule.last.task_id)}`;
    }
    setText(skipped, skippedWords(schedule, now()));
    setText(pause, paused ? 'Resume' : 'Pause');
    run.setAttribute('aria-label', `Run now: ${schedule.name}`);
    pause.setAttribute('aria-label', `${paused ? 'Resume' : 'Pause'} ${schedule.name}`);
  }

  return {
    element,
    update(next) {
      schedule = next;
      draw();
    },
  };
}

function noSchedule() {
  const element = h('li', { class: 'empty' },
    h('h2', {}, 'No schedule is set'),
    h('p', {}, 'A schedule submits a task again and again:'),
    h('pre', { tabIndex: 0 }, "taskhub schedule set nightly report --cron '0 3 * * *' --time-zone Europe/Berlin"));
  return { element, update() {} };
}
