// What a watcher knows of the tasks: pure state, no DOM, no network, no clock.
//
// One rule carries everything: a task is ordered by (`rev`, `tick`), `rev` growing with each transition and `tick`
// with each progress report between two of them. Whatever is not above what is known of a task is ignored. That
// makes snapshots, duplicates and replays harmless, so nothing here needs to know where a record came from.
//
// A record is never changed in place: who holds one from yesterday still holds yesterday's, and two records are
// the same exactly when they are the same object.

/** Every status, in the order a task passes through them. */
export const STATUSES = ['waiting', 'scheduled', 'pending', 'running', 'completed', 'failed', 'cancelled'];

const FINAL = new Set(['completed', 'failed', 'cancelled']);

/** Has the task ended? (A failed or cancelled one may still be retried by hand.) */
export const isFinal = (task) => FINAL.has(task.status);

/** Is `a` above `b` in the order of (`rev`, `tick`)? */
export const isAbove = (a, b) => a.rev > b.rev || (a.rev === b.rev && (a.tick ?? 0) > (b.tick ?? 0));

/**
 * Deleted tasks whose `rev` is remembered, so that an old record that comes late does not bring them back. A late
 * record trails the deletion by seconds; ten thousand deletions are a long time on any page.
 */
export const GONE_MAX = 10_000;

/** The newest record of each task. */
export class Tasks {
  #records = new Map(); // task_id → record
  #ahead = new Map(); // task_id → progress of a transition whose record has not come yet
  #gone = new Map(); // task_id → rev of its deletion

  get size() {
    return this.#records.size;
  }

  get(task_id) {
    return this.#records.get(task_id);
  }

  values() {
    return this.#records.values();
  }

  /** Takes a full record. Returns what is now known, or `null` when that was known already. */
  apply(record) {
    const { task_id } = record;
    const known = this.#records.get(task_id);
    if (known ? !isAbove(record, known) : this.#gone.get(task_id) >= record.rev) return null;
    const ahead = this.#ahead.get(task_id);
    if (ahead && ahead.rev <= record.rev) this.#ahead.delete(task_id);
    if (ahead?.rev === record.rev && isAbove(ahead, record)) {
      record = { ...record, tick: ahead.tick, progress: ahead.progress };
    }
    this.#records.set(task_id, record);
    this.#gone.delete(task_id);
    return record;
  }

  /** Takes a progress report. Returns the record that now carries it, or `null` when there is nothing new to see. */
  progress({ task_id, rev, tick, progress }) {
    const known = this.#records.get(task_id);
    if (!known || !isAbove({ rev, tick }, known)) return null;
    if (rev > known.rev) {
      // Taking its rev now would make the record of that transition look old when it comes.
      const ahead = this.#ahead.get(task_id);
      if (!ahead || isAbove({ rev, tick }, ahead)) this.#ahead.set(task_id, { rev, tick, progress });
      return null;
    }
    const record = { ...known, tick, progress };
    this.#records.set(task_id, record);
    return record;
  }

  /** Takes a deletion. Returns the last record, or `null` when the task was unknown or has changed since. */
  gone(task_id, rev) {
    const known = this.#records.get(task_id);
    if (known && known.rev > rev) return null;
    this.forget(task_id);
    this.#gone.delete(task_id);
    this.#gone.set(task_id, rev);
    if (this.#gone.size > GONE_MAX) this.#gone.delete(this.#gone.keys().next().value);
    return known ?? null;
  }

  /** Drops a record without a memory of it: the task may come back with any `rev`. */
  forget(task_id) {
    this.#ahead.delete(task_id);
    return this.#records.delete(task_id);
  }

  /** The records to let go of first when there are too many: those that ended, then the others, and of each the longest quiet. */
  oldest(n) {
    return [...this.#records.values()].sort((a, b) => isFinal(b) - isFinal(a) || a.rev - b.rev).slice(0, n);
  }

  /** Forgets everything, also what was deleted: the hub is on another history, its numbers mean something else. */
  clear() {
    this.#records.clear();
    this.#ahead.clear();
    this.#gone.clear();
  }
}

const inList = (list, value) => list === undefined || list.includes(value);

const inPatterns = (list, value) =>
  list === undefined || list.some((p) => (p.endsWith('*') ? value?.startsWith(p.slice(0, -1)) : p === value));

/** Does the task match a subscription filter? An AND of lists, each an OR; `{}` matches everything. */
export function matches(filter, task) {
  return (
    inList(filter.task_id, task.task_id) &&
    inList(filter.status, task.status) &&
    inPatterns(filter.task_type, task.task_type) &&
    inPatterns(filter.queue, task.queue) &&
    inList(filter.user_id, task.user_id) &&
    inList(filter.workflow_id, task.workflow_id) &&
    Object.entries(filter.labels ?? {}).every(([key, values]) => values.includes(task.labels?.[key]))
  );
}

const descending = (a, b) => (a < b ? 1 : a > b ? -1 : 0);

const byCreation = (a, b) => descending(a.created_at, b.created_at) || descending(a.task_id, b.task_id);

/** How a list can be sorted, newest first. Progress moves nothing: in any of these orders a list only moves on transitions. */
export const ORDERS = {
  running: (a, b) => (b.status === 'running') - (a.status === 'running') || byCreation(a, b),
  created: byCreation,
  changed: (a, b) => b.rev - a.rev,
};

/** Does the text occur in the task's title, type or id? Upper and lower case are alike. */
export function mentions(text, task) {
  const needle = text.trim().toLowerCase();
  return !needle || [task.title, task.task_type, task.task_id].some((part) => part?.toLowerCase().includes(needle));
}

/** The tasks to show: those that match, in order, at most `limit`; and how many there were. */
export function select(tasks, { filter = {}, text = '', order = 'created', limit = Infinity } = {}) {
  const found = [...tasks].filter((task) => matches(filter, task) && mentions(text, task)).sort(ORDERS[order]);
  return { tasks: found.length > limit ? found.slice(0, limit) : found, total: found.length };
}

/** How many tasks there are of each status; all seven are named. */
export function countByStatus(tasks) {
  const counts = Object.fromEntries(STATUSES.map((status) => [status, 0]));
  for (const task of tasks) counts[task.status] = (counts[task.status] ?? 0) + 1;
  return counts;
}
