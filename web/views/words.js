// How numbers, times and statuses are said to people. Pure; `now` is an argument.

const number = new Intl.NumberFormat('en');
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit' });

/** 12,345 */
export const count = (n) => number.format(n);

/** 0.42, 4.2, 42 */
export const rate = (n) => (n === 0 ? '0' : n < 1 ? n.toFixed(2) : n < 10 ? n.toFixed(1) : count(Math.round(n)));

/** 640 B, 12 KiB, 1.5 MiB */
export function bytes(n) {
  if (n < 1_024) return `${n} B`;
  if (n < 1_024 * 1_024) return `${Math.round(n / 1_024)} KiB`;
  return `${(n / 1_024 / 1_024).toFixed(1)} MiB`;
}

/** A length of time in at most two units: 240 ms, 4.2 s, 3m 12s, 2h 5m, 6d 1h. Below zero (clocks differ) it is nothing. */
export function span(ms) {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  const s = ms / 1_000;
  if (s < 10) return `${(Math.floor(s * 10) / 10).toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  const two = (large, small, each, a, b) => (small % each ? `${large}${a} ${small % each}${b}` : `${large}${a}`);
  if (s < 3_600) return two(Math.floor(s / 60), Math.floor(s), 60, 'm', 's');
  if (s < 86_400) return two(Math.floor(s / 3_600), Math.floor(s / 60), 60, 'h', 'm');
  return two(Math.floor(s / 86_400), Math.floor(s / 3_600), 24, 'd', 'h');
}

/** A length of time in one unit, for narrow columns: now, 12s, 3m, 2h, 6d. */
export function short(ms) {
  const s = Math.floor(ms / 1_000);
  if (s < 1) return 'now';
  if (s < 60) return `${s}s`;
  if (s < 3_600) return `${Math.floor(s / 60)}m`;
  if (s < 86_400) return `${Math.floor(s / 3_600)}h`;
  return `${Math.floor(s / 86_400)}d`;
}

/** How far the hub's live updates are behind; nothing while nobody would notice. */
export const behindBy = (lag_ms) => (lag_ms <= 1_000 ? '' : `Live updates are ${span(Math.floor(lag_ms / 1_000) * 1_000).replace('.0', '')} behind.`);

/** 14:02:11, on this clock. */
export const time = (at) => clock.format(new Date(at));

/** 14:02:11 today, 3 May, 14:02:11 else. */
export function moment(at, now) {
  const date = new Date(at);
  return date.toDateString() === new Date(now).toDateString() ? clock.format(date) : day.format(date);
}

/** What a task is called: its title, or its type. */
export const title = (task) => task.title || task.task_type;

/** The part of an id that tells tasks of one moment apart. */
export const shortId = (task_id) => task_id.slice(-8);

const EVENTS = {
  'task.created': 'created',
  'task.scheduled': 'scheduled',
  'task.pending': 'ready',
  'task.running': 'started',
  'task.completed': 'completed',
  'task.failed': 'failed',
  'task.cancelled': 'cancelled',
  'task.retrying': 'to be tried again',
  'task.cancel_requested': 'asked to stop',
  'task.updated': 'changed',
};

/** A transition's event. One this page does not know is said as it is. */
export const eventWord = (event) => EVENTS[event] ?? event.replace(/^task\./, '').replaceAll('_', ' ');

/** How long it has run, or ran: of a task that waits for another try nothing is counted. */
export function taken(task, now) {
  if (!task.started_at) return '';
  if (task.status === 'running') return `running for ${span(now - Date.parse(task.started_at))}`;
  return task.finished_at ? `took ${span(Date.parse(task.finished_at) - Date.parse(task.started_at))}` : '';
}

/** What there is to say of a task in one line, beside its status: how far it is, why it ended, what it is waiting for. */
export function standing(task, now) {
  const { status, progress, error, last_error } = task;
  const since = (at) => now - Date.parse(at);
  if (task.cancel_requested_at && status === 'running') return 'asked to stop';
  if (status === 'running') return [progress?.step, progress?.message].filter(Boolean).join(' · ') || `for ${span(since(task.started_at))}`;
  if (status === 'failed') return whatFailed(error);
  if (status === 'completed') return taken(task, now);
  if (status === 'scheduled' && task.run_at) {
    const when = since(task.run_at) < 0 ? `in ${span(-since(task.run_at))}` : 'due';
    return last_error ? `again ${when} · ${whatFailed(last_error)}` : when;
  }
  if (status === 'pending' && last_error) return `again · ${whatFailed(last_error)}`;
  if (status === 'waiting' && task.dependencies) return `for ${count(task.dependencies)} ${task.dependencies === 1 ? 'task' : 'tasks'}`;
  return '';
}

/** Why a task waits, the nearest reason first. A reason that this page does not know is said by its name. */
export function waitsWords(reasons, now) {
  const words = {
    time: ({ until }) => `${moment(until, now)}, in ${span(Math.max(0, Date.parse(until) - now))}`,
    dependency: ({ count: tasks }) => `${count(tasks)} ${tasks === 1 ? 'task' : 'tasks'} that it depends on`,
    queue_paused: () => 'its queue, which is paused',
    queue_limit: ({ limit, running }) => `its queue: ${count(running)} run, and ${count(limit)} may at a time`,
    key_limit: ({ limit, running }) => `others with its key: ${count(running)} run, and ${count(limit)} may at a time`,
    user_limit: ({ limit, running }) => `others of its user: ${count(running)} run, and ${count(limit)} may at a time`,
    rate: ({ until }) => `its rate: as many were handed out as may, the next from ${moment(until, now)} on, in ${span(Math.max(0, Date.parse(until) - now))}`,
    no_worker: () => 'a worker that takes it: none is connected',
    turn: ({ ahead }) => (ahead ? `its turn: ${ahead < 1_000 ? count(ahead) : '1,000 or more'} before it` : 'room at its workers: it is next'),
  };
  return reasons.map((reason) => words[reason.kind]?.(reason) ?? reason.kind.replaceAll('_', ' ')).join('; then for ');
}

/** The hosts that are told of a task, and what of that has not arrived. `owed` is what `GET /callbacks` has of it. */
export function callbacksWords(callbacks, owed) {
  const said = (list, words) => (list.length ? `${count(list.length)} ${words}${list[0].last_error ? `, ${list[0].last_error}` : ''}` : undefined);
  return callbacks.map(({ url }) => {
    const of = (status) => owed.filter((each) => each.url === url && each.status === status);
    const states = [said(of('pending'), 'on the way'), said(of('failed'), 'given up')].filter(Boolean);
    return [new URL(url).host, ...states].join(': ');
  }).join('; ');
}

const whatFailed = (failure) => lineThatSays(failure?.message || failure?.kind || '');

/** The last line of a traceback says more than its first. */
function lineThatSays(message) {
  const lines = message.split('\n').filter((line) => line.trim());
  return (/^Traceback/.test(lines[0]) ? lines.at(-1) : lines[0])?.trim() ?? '';
}

/**
 * What the end of a list says: how many tasks are shown, of how many. `total` where the hub counts them; `live_at` is when
 * they were last known to be right, if that was not just now.
 */
export function shownWords({ n, more, is_full, total, searched, answered, live_at }) {
  const tasks = n === 1 ? '1 task' : `${count(n)} tasks`;
  if (live_at && !answered) return n ? `Not live: of what this page knew at ${live_at}, ${tasks} ${n === 1 ? 'matches' : 'match'}. There may be others.` : '';
  if (!answered) return n ? 'Asking the hub…' : '';
  const as_of = live_at ? `, as of ${live_at}` : '';
  if (!more) return n ? `${tasks}${as_of}` : '';
  const beyond = is_full ? ' Filter for what you look for; this page shows no more.' : '';
  if (searched) return `${count(n)} found so far${as_of}; older ones may match too.${beyond}`;
  return (total > n ? `${count(n)} of ${count(total)} tasks${as_of}${is_full ? '.' : ''}` : `${tasks}${as_of}; there are more.`) + beyond;
}

/** The percentage to show, 0–100, or undefined where none was reported. */
export function percentage({ progress }) {
  if (!progress) return undefined;
  if (progress.percentage !== undefined) return Math.min(100, Math.max(0, progress.percentage));
  return progress.total > 0 ? Math.min(100, ((progress.current ?? 0) / progress.total) * 100) : undefined;
}

/** What went wrong with a call, in one line. */
export const complaint = (error) => [error.status, error.code, error.message].filter(Boolean).join(' · ');
