// What a watcher holds: the picture of a filter, kept right through cuts and snapshots, or a handle on one task.
//
// A subscription knows nothing of the socket. The hub tells it what came (`begin`, `snapshot`, `changed`, …) and it
// tells its listeners what that means for its picture. While a snapshot is coming in it stays quiet: what happens in
// between goes into the picture that is being put together, and is told with it.

import { HubError } from './rest.js';
import { isFinal, matches } from './store.js';

/** Events that wait for a slow `for await`. One more, and they are replaced by one snapshot of how it stands now. */
const EVENTS_WAITING_MAX = 1_024;

/** A filter's picture: which tasks are in it, and how far it has been told. Made by `hub.subscribe()`. */
export class Subscription {
  members = new Set();
  asked; // the id of its request
  catching_up = false; // it was asked for, and no mark has come since: what was missed may be long
  mark; // where it can resume
  epoch; // what the history was called when that was heard
  #fresh; // the snapshot that is coming in, or undefined
  #live = false; // `subscribed` has been heard on this socket
  #ready = false; // it has had a picture
  #ended;
  #seqs = new Map(); // task_id → newest log line told
  #handlers;
  #readers = new Set();
  #tasks;
  #remove;
  #tell_others;

  constructor(name, request, handlers = {}, tasks, remove, tell_others) {
    Object.assign(this, { name, request });
    this.#handlers = handlers;
    this.#tasks = tasks;
    this.#remove = remove;
    this.#tell_others = tell_others;
  }

  /** Counts and settings have no picture of tasks, and no marks. */
  get isOfTasks() {
    return !this.request.stats && !this.request.settings;
  }

  /** The tasks in the picture, in no particular order. */
  get tasks() {
    return [...this.members].map((task_id) => this.#tasks.get(task_id)).filter(Boolean);
  }

  /** Takes tasks from `hub.list()` or `hub.get()` into the picture, so that their progress is told too. */
  include(tasks) {
    for (const task of tasks) {
      this.#take(task);
      if (matches(this.request.filter, this.#tasks.get(task.task_id) ?? {})) this.members.add(task.task_id);
    }
  }

  /** A record that was asked for here. Where it is newer than what was known, it may be news to other subscriptions. */
  #take(task) {
    const news = this.#tasks.apply(task);
    if (news) this.#tell_others(news);
  }

  /** Ends the subscription. */
  close() {
    this.#ended ??= {};
    this.#remove();
    for (const reader of this.#readers) reader.wake();
  }

  /** Its events, one by one, the picture first. Leaving the loop closes the subscription. */
  async *[Symbol.asyncIterator]() {
    const reader = { waiting: new Map(), count: 0, wake() {} };
    this.#readers.add(reader);
    if (this.#ready) reader.waiting.set(0, this.#picture());
    try {
      for (;;) {
        for (const [key, event] of reader.waiting) {
          reader.waiting.delete(key);
          yield event;
        }
        if (reader.waiting.size) continue;
        if (this.#ended?.code) throw new HubError(this.#ended);
        if (this.#ended) return;
        await new Promise((resolve) => (reader.wake = resolve));
      }
    } finally {
      this.#readers.delete(reader);
      this.close();
    }
  }

  // What follows is called by the hub.

  holds(task_id) {
    return this.members.has(task_id) || !!this.#fresh?.has(task_id);
  }

  isLive() {
    return this.#live;
  }

  /** Answers whether it can be built upon: what it was resumed from may be void by now. */
  begin(mode) {
    this.#live = true;
    if (mode === 'snapshot') this.void();
    return mode === 'snapshot' || this.mark !== undefined || !this.isOfTasks;
  }

  /** Where it could resume is no place any more; a snapshot follows. */
  void() {
    this.mark = undefined;
    this.#fresh = new Set();
  }

  /** The hub is on another history: nothing that was told can be built upon. */
  renew() {
    this.void();
    this.#seqs.clear();
  }

  cut() {
    this.#live = false;
    this.#fresh = undefined;
  }

  snapshot({ tasks, more, truncated = false }) {
    if (!this.#fresh) this.void();
    for (const task of tasks) {
      this.#take(task);
      const known = this.#tasks.get(task.task_id); // perhaps newer than the snapshot, perhaps gone since
      if (known && matches(this.request.filter, known)) this.#fresh.add(task.task_id);
    }
    if (more) return;
    this.members = this.#fresh;
    this.#fresh = undefined;
    this.#ready = true;
    this.#tell({ ...this.#picture(), truncated });
  }

  /**
   * Whether a record that another subscription asked for is news here: it is, if it is from after the mark. Its own line is
   * still on its way, and will be ignored.
   */
  misses({ task_id, rev }) {
    if (this.mark === undefined) return this.#live; // caught up with its snapshot, or its snapshot is still to come
    return this.holds(task_id) || rev > this.mark;
  }

  changed(task, event) {
    if (!this.isOfTasks) return;
    const { task_id } = task;
    const inside = matches(this.request.filter, task);
    if (this.#fresh) {
      // The snapshot that is on its way will tell it.
      if (inside) this.#fresh.add(task_id);
      else this.#fresh.delete(task_id);
    } else if (inside) {
      this.members.add(task_id);
      this.#tell({ type: 'task', event, task });
    } else if (this.members.delete(task_id)) {
      this.#tell({ type: 'leave', event, task });
    }
  }

  progressed(task) {
    if (!this.#fresh && this.members.has(task.task_id)) this.#tell({ type: 'progress', task });
  }

  left(task) {
    this.#fresh?.delete(task.task_id);
    if (this.members.delete(task.task_id)) this.#tell({ type: 'leave', task });
  }

  lost(task_id) {
    this.#fresh?.delete(task_id);
    this.#seqs.delete(task_id);
    if (this.members.delete(task_id)) this.#tell({ type: 'gone', task_id });
  }

  logged(task_id, lines) {
    if (!this.#live || !this.request.logs || !this.request.filter.task_id?.includes(task_id)) return;
    const told = this.#seqs.get(task_id) ?? -1;
    const fresh = lines.filter(({ seq }) => seq > told);
    if (!fresh.length) return;
    this.#seqs.set(task_id, fresh.at(-1).seq);
    this.#tell({ type: 'log', task_id, lines: fresh });
  }

  marked(rev, epoch) {
    if (!this.#live || this.#fresh || !this.isOfTasks) return false;
    this.catching_up = false;
    this.mark = rev;
    this.epoch = epoch;
    return true;
  }

  fail(error) {
    this.#ended = error;
    this.#tell({ ...error, type: 'error' });
    for (const reader of this.#readers) reader.wake();
  }

  #picture() {
    return { type: 'snapshot', tasks: this.tasks, truncated: false };
  }

  #tell(event) {
    const fn = typeof this.#handlers === 'function' ? this.#handlers : this.#handlers[event.type];
    if (fn) guarded(fn, event);
    for (const reader of this.#readers) {
      if (event.type === 'error') break;
      if (event.type === 'snapshot' || reader.waiting.size >= EVENTS_WAITING_MAX) {
        reader.waiting.clear();
        event = event.type === 'snapshot' ? event : this.#picture();
      }
      const key = event.type === 'progress' ? event.task.task_id : ++reader.count;
      reader.waiting.delete(key); // of progress only the newest waits
      reader.waiting.set(key, event);
      reader.wake();
    }
  }
}

/** One task, watched while somebody listens. Made by `hub.task(id)`. */
export class TaskHandle {
  /** Its newest record, while somebody listens and once it is known. */
  task;
  #hub;
  #handles;
  #listeners = new Emitter();
  #watch; // the subscription for its state
  #tail; // the subscription for its log
  #gone = false;
  #ended_rev; // of the end that was told

  constructor(hub, task_id, handles) {
    this.task_id = task_id;
    this.#hub = hub;
    this.#handles = handles;
  }

  /**
   * - `change`: `fn(task, event)`, its record when first known and after each transition.
   * - `progress`: `fn(progress, task)`. - `log`: `fn(lines)`, the last 100 first.
   * - `final`: `fn(task)`, when it is completed, failed or cancelled, once for each end: also one before this was called,
   *   and another after a retry by hand. A large result is not in it (`result_omitted`); `hub.get()` has it, or
   *   where it was uploaded (`result_bytes`), `hub.resultUrl()` leads to it.
   * - `gone`: `fn()`, deleted, not visible, or there is no such task. - `error`: `fn(HubError)`, nothing more will come.
   *
   * Returns a function that stops listening.
   */
  on(kind, fn) {
    const off = this.#listeners.on(kind, fn);
    const filter = { task_id: [this.task_id] };
    this.#handles.set(this.task_id, this);
    this.#watch ??= this.#hub.subscribe({ filter, snapshot: { limit: 1 } }, (event) => this.#told(event));
    if (kind === 'log') {
      const log = ({ lines }) => this.#listeners.emit('log', lines);
      this.#tail ??= this.#hub.subscribe({ filter, snapshot: { limit: 1 }, logs: { tail: 100 } }, { log });
    }
    let listens = true;
    const { task } = this;
    // Nobody will tell it of an end that others have heard of already.
    if (kind === 'final' && task?.rev === this.#ended_rev) queueMicrotask(() => listens && task && guarded(fn, task));
    return () => {
      listens = false;
      off();
      if (!this.#listeners.has('log')) this.#tail = this.#tail?.close();
      if (this.#listeners.size) return;
      this.#watch = this.#watch?.close();
      this.task = undefined; // nobody keeps it up to date now
      this.#gone = false;
      this.#ended_rev = undefined;
      if (this.#handles.get(this.task_id) === this) this.#handles.delete(this.task_id);
    };
  }

  /**
   * Resolves with the task, result and all, once it is completed, failed or cancelled: look at `status`. Rejects with a
   * HubError when it is `gone` (also when it never was), when the hub refuses, or when the connection is closed.
   * After a retry by hand say `since_rev`, the `rev` that `hub.retry()` answered: the end before it does not count.
   */
  async finished({ since_rev = -1 } = {}) {
    const offs = [];
    const final = await new Promise((resolve, reject) => {
      const gone = () => reject(new HubError({ code: 'gone', detail: `task ${this.task_id} is gone` }));
      const look = (task) => isFinal(task) && task.rev > since_rev && resolve(task);
      offs.push(this.on('change', look));
      offs.push(this.on('gone', gone), this.on('error', reject));
      if (this.task) look(this.task);
      if (this.#gone) gone();
    }).finally(() => offs.forEach((off) => off()));
    return final.result_omitted ? this.#hub.get(this.task_id) : final;
  }

  #told({ type, task = undefined, tasks, event, ...error }) {
    if (type === 'snapshot') [task] = tasks;
    if (type === 'snapshot' || type === 'task') this.#gone = !task;
    this.task = task ?? (this.#gone ? undefined : this.task);
    if (type === 'error') {
      this.#watch = this.#tail = undefined;
      this.#listeners.emit('error', new HubError(error));
    } else if (type === 'gone' || this.#gone) {
      this.#gone = true;
      this.task = undefined;
      this.#listeners.emit('gone');
    } else if (type === 'progress') {
      this.#listeners.emit('progress', task.progress, task);
    } else if (task) {
      this.#listeners.emit('change', task, event);
      if (!isFinal(task) || task.rev === this.#ended_rev) return;
      this.#ended_rev = task.rev;
      this.#listeners.emit('final', task);
    }
  }
}

/** Listeners by the kind of event. */
export class Emitter {
  #fns = new Map(); // kind → Set of entries; an entry is its own, so that one function may listen twice

  get size() {
    return this.#fns.size;
  }

  has(kind) {
    return this.#fns.has(kind);
  }

  on(kind, fn) {
    const entry = { fn };
    if (!this.#fns.has(kind)) this.#fns.set(kind, new Set());
    this.#fns.get(kind).add(entry);
    return () => {
      const entries = this.#fns.get(kind);
      if (entries?.delete(entry) && !entries.size) this.#fns.delete(kind);
    };
  }

  emit(kind, ...values) {
    for (const { fn } of this.#fns.get(kind) ?? []) guarded(fn, ...values);
  }
}

/** A listener that throws must not stop the others, or the socket. */
export function guarded(fn, ...values) {
  try {
    fn(...values);
  } catch (error) {
    (globalThis.reportError ?? console.error)(error);
  }
}
