// The taskhub client for browsers (and Node 22): one socket, any number of watchers, no dependencies.
//
//     import { connect } from 'https://hub.example/taskhub.js';
//
//     const hub = connect();
//     const { task_id } = await hub.submit({ task_type: 'report', payload: { month: 5 } });
//     hub.task(task_id).on('progress', (progress) => (bar.value = progress.percentage));
//     const task = await hub.task(task_id).finished();
//
// It promises: what it tells is in order and told once, across cuts, restarts and a hub that starts a new history; after a cut it
// resumes where it was or starts from a fresh snapshot, never with a hole; it says when what you see may be old.
// It does not keep requests for later: a REST call that fails, fails, and says why.
//
// Resuming rests on two rules. A record counts only when its (`rev`, `tick`) is above what is known (store.js). And a
// subscription resumes only from a `mark` that came after its own `subscribed`; a snapshot or a reset voids the mark
// it had, because until the next one nobody has said that all before it was sent.

import { follow } from './events.js';
import { HubError, Rest, parsed } from './rest.js';
import { Tasks } from './store.js';
import { Emitter, Subscription, TaskHandle, guarded } from './subscription.js';
import { Token } from './token.js';

export { HubError } from './rest.js';
export { STATUSES, isFinal, matches } from './store.js';

const SUBPROTOCOL = 'taskhub.v1';

/**
 * The wait before another attempt is random between 0 and a bound that doubles from `first` to `last`, and only to `watched`
 * while somebody looks at the page: they see how long it takes.
 */
const RETRY_MS = { first: 500, last: 15_000, watched: 3_000 };

/** A connection that lasted this long was a good one: the next cut starts again at `RETRY_MS.first`. */
const STEADY_MS = 10_000;

/** An attempt that has not heard the hub's hello by now is given up. */
const HELLO_MS_MAX = 10_000;

/**
 * Used until the hub has said its own. After one of these without a word it is asked, after two it is left; and after
 * two without a mark, though it says one in each, it talks and does not tell: another connection may fare better.
 */
const PING_MS = 25_000;

/** A connection that slept, or comes back into view, answers within this time or is left for another. */
const AWAKE_MS = 3_000;

/** Messages a second that a hub takes, until it has said its own number. A client keeps to half of it. */
const MESSAGES_PER_S = 200;

/** Closed for what this client said or cannot take: it would say the same again. Protocol broken, message too big. */
const OUR_FAULT = new Set([1002, 1009]);

/** Another token that could not be had, or was not taken, is asked for again after this; the one before is in force. */
const RENEW_AGAIN_MS = 5_000;

/** Closed because the token expired; and because the hub does not know it. */
const [EXPIRED, UNKNOWN] = [4004, 4501];

/** Refusals of a subscription that mean "not now": it is asked for again. */
const NOT_NOW = new Set(['rate_limited', 'overloaded', 'draining', 'storage_unavailable', 'internal']);

/**
 * Connects to a hub, and stays connected until `close()`.
 *
 * `url` is the hub's `http(s)://` address, by default where this module was loaded from.
 * `options.token`: a text, or a function that gives one, or `{token, expires_at}`, or a promise of these. What says when it
 * expires is kept until shortly before, and replaced on the open socket; what does not is asked for at each connection and
 * call. One that the hub refuses is asked for anew, once.
 * `options.heard(message, text)`: called with each message of the hub and the JSON text it came as, before it is taken.
 * `options.tasks_max`: records held at once, 10,000 by default; beyond, the ones that ended longest ago leave.
 * `WebSocket`, `EventSource`, `fetch`, `timers` (`setTimeout`, `clearTimeout`, `now`), `random` and `page` (the document) can be replaced, for tests.
 */
export function connect(url, options) {
  return typeof url === 'string' || url instanceof URL ? new Hub(url, options) : new Hub(undefined, url ?? options);
}

class Hub extends Rest {
  /** `connecting`, `live`, `offline` (waits, then tries again), `resuming` (connected, catching up), `refused` or `closed` (for good). */
  status = 'connecting';
  /** True after the hub merged transitions because this client was slow, until all of them have come. */
  behind = false;
  /** The hub's name for its history since it was last started, and who it says is watching, if anyone. Set once connected. */
  epoch;
  user_id;

  /** Records held at once; beyond, the ones that ended longest ago leave. It may be changed. */
  tasks_max;

  #options;
  #listeners = new Emitter();
  #tasks = new Tasks();
  #subscriptions = new Map(); // name → Subscription
  #handles = new Map(); // task_id → TaskHandle, while it is listened to
  #stats; // the one subscription behind every hub.stats(fn)
  #settings; // and the one behind every hub.settings(fn)
  #awaited = new Set(); // subscriptions that have not caught up since the socket opened
  #socket;
  #greeted = false; // requests may be sent
  #hello; // the id of the hello that is not answered
  #refresh; // and of the refresh
  #said_token; // the token that was said last
  #anew = false; // it does not do any more
  #tried_anew = false; // one was asked for anew because the hub had refused the one before
  #renewing; // the timer for the next
  #bye;
  #ids = 0;
  #names = 0;
  #failures = 0; // attempts in a row that did not hold
  #greeted_at = 0;
  #heard_at = 0;
  #begun_anew = false; // what was known is forgotten, since this connection is on another history
  #marked_at = 0; // when the hub last said how far it has told, or was asked to tell something
  #said = false; // the hub has heard a word of this connection
  #asked = false; // a ping is out
  #outbox = []; // requests that wait for their turn
  #free_at = 0; // when the requests so far are paid for
  #each_ms = 2_000 / MESSAGES_PER_S; // what a request costs
  #sending; // the timer for the outbox
  #ping_ms = PING_MS;
  #timer; // the one thing awaited: the next attempt, the hello, or a word from the hub

  constructor(url = new URL('.', import.meta.url), options = {}) {
    const { token, tasks_max = 10_000, fetch = (...request) => globalThis.fetch(...request) } = options;
    const base = new URL(url);
    if (!base.pathname.endsWith('/')) base.pathname += '/';
    super({ base, token: new Token(token, options.timers?.now), fetch });
    this.tasks_max = tasks_max;
    this.#options = {
      WebSocket: globalThis.WebSocket,
      EventSource: globalThis.EventSource,
      timers: {
        setTimeout: (fn, ms) => globalThis.setTimeout(fn, ms),
        clearTimeout: (timer) => globalThis.clearTimeout(timer),
        now: () => Date.now(),
      },
      random: Math.random,
      page: globalThis.document,
      ...options,
    };
    globalThis.addEventListener?.('online', this.#wake);
    globalThis.addEventListener?.('pageshow', this.#wake);
    this.#options.page?.addEventListener('visibilitychange', this.#wake);
    this.#open();
  }

  /**
   * Listens to the connection: `status` (`{status, behind, retry_ms?, close_code?, reason?}`, at each change), `lag`
   * (`{collapsed}`: that many transitions were merged), `error` (the hub complained about something this client sent).
   * Returns a function that stops listening.
   */
  on(kind, fn) {
    return this.#listeners.on(kind, fn);
  }

  /**
   * Watches the tasks that match a filter. `request`:
   * - `filter`: an AND of lists, each an OR of up to 1,000: `task_id`, `task_type` and `queue` (with a trailing `*`),
   *   `status`, `user_id`, `workflow_id`, `labels` (`{project_id: ['p1']}`). Default: everything visible.
   * - `snapshot`: `{limit: 200, order: 'desc'}`; at most 1,000, by creation.
   * - `max_hz`: progress reports a second and task, at most the hub's own (10).
   * - `logs`: `{tail: 100}`; needs `task_id` in the filter.
   *
   * `handlers` is one function for all events, or an object of functions by type. The events:
   * - `{type: 'snapshot', tasks, truncated}`: everything in the picture; it replaces the picture you had.
   * - `{type: 'task', event, task}`: a transition. `{type: 'progress', task}`: the same task, further on.
   * - `{type: 'leave', task, event?}`: it does not match any more, or had to make room (`tasks_max`).
   * - `{type: 'gone', task_id}`: deleted, or not visible any more.
   * - `{type: 'log', task_id, lines}`: each line once, by `seq`. A jump in `seq` after a cut: ask `hub.logs()`.
   * - `{type: 'error', code, detail}`: it ended, by a refusal or by `hub.close()`.
   *
   * The subscription also is an async iterator of these events. At most 64 at a time.
   */
  subscribe({ filter = {}, ...request } = {}, handlers) {
    return this.#add({ filter, ...request }, handlers);
  }

  /**
   * One task: `.on('change' | 'progress' | 'log' | 'final' | 'gone' | 'error', fn)` and `.finished()`. It takes one of the 64
   * subscriptions while somebody listens, two with its log.
   */
  task(task_id) {
    return this.#handles.get(task_id) ?? new TaskHandle(this, task_id, this.#handles);
  }

  /** Calls `fn` with the hub's counts and rates (as `GET /stats`), about once a second. Returns a function that ends it. */
  stats(fn) {
    this.#stats ??= Object.assign(this.#add({ stats: true }), { listeners: new Set(), last: undefined });
    const stats = this.#stats;
    stats.listeners.add(fn);
    if (stats.last) fn(stats.last);
    return () => {
      if (!stats.listeners.delete(fn) || stats.listeners.size) return;
      stats.close();
      if (this.#stats === stats) this.#stats = undefined;
    };
  }

  /**
   * Calls `fn` with what is set on the hub, at first and within a moment of each change: `{type: 'queue', name, …}`,
   * `{type: 'schedule', name, …}`, `{type: 'task_type', name, …}` and `{type: 'limits', …}`, each whole. Returns a function that ends it.
   */
  settings(fn) {
    this.#settings ??= Object.assign(this.#add({ settings: true }), { listeners: new Set(), known: new Map(), coming: [], whole: false });
    const settings = this.#settings;
    settings.listeners.add(fn);
    if (settings.whole) fn([...settings.known.values()]);
    return () => {
      if (!settings.listeners.delete(fn) || settings.listeners.size) return;
      settings.close();
      if (this.#settings === settings) this.#settings = undefined;
    };
  }

  /** Tries now instead of waiting for the next attempt. Does nothing unless `offline`. */
  reconnect = () => {
    if (this.status === 'offline' && !this.#socket) this.#open();
  };

  /**
   * Calls `fn` with each message of the live stream as server-sent events, for where a WebSocket does not get through: `query` is
   * that of `GET /events`. After a cut it begins with a snapshot again. Returns a function that ends it.
   */
  events(query, fn) {
    const { EventSource, timers, random } = this.#options;
    return follow({ hub: this, query, told: fn, EventSource, timers, random });
  }

  /** Asks for another token now, and says it. One that says when it expires is replaced in time without this. */
  async refresh() {
    const socket = this.#socket;
    const given = await this.token.insteadOf(this.#said_token);
    if (given && this.#greeted && socket === this.#socket) this.#refreshWith(given);
  }

  /** Ends the connection and every subscription. */
  close() {
    if (this.status === 'closed') return;
    globalThis.removeEventListener?.('online', this.#wake);
    globalThis.removeEventListener?.('pageshow', this.#wake);
    this.#options.page?.removeEventListener('visibilitychange', this.#wake);
    this.#drop();
    this.#end('closed', { code: 'closed', detail: 'the connection was closed by this page' });
  }

  // The connection.

  #isWatched() {
    return this.#options.page?.visibilityState === 'visible';
  }

  /** The network is back, the laptop awake, the page in view again: what was waited for may be had now. */
  #wake = ({ type } = {}) => {
    if (type === 'visibilitychange' && !this.#isWatched()) return;
    this.reconnect();
    const quiet_ms = this.#options.timers.now() - this.#heard_at;
    if (!this.#greeted || quiet_ms < this.#ping_ms) return;
    if (this.#asked) this.#after(AWAKE_MS, () => this.#listen());
    else this.#listen();
  };

  #open() {
    const { WebSocket } = this.#options;
    const url = new URL('api/v1/ws', this.base);
    url.protocol = url.protocol.replace('http', 'ws');
    const socket = (this.#socket = new WebSocket(url.href, [SUBPROTOCOL]));
    const mine = (fn) => (event) => socket === this.#socket && fn(event);
    socket.onmessage = mine(({ data }) => {
      const now = this.#options.timers.now();
      // A page that slept did not hear the marks that were said.
      if (now - this.#heard_at >= 2 * this.#ping_ms) this.#marked_at = now;
      this.#heard_at = now;
      this.#asked = false;
      for (const line of data.split('\n')) {
        const message = line && parsed(line);
        if (!message || socket !== this.#socket) continue;
        this.#options.heard?.(message, line);
        this.#take(message);
      }
      if (socket === this.#socket && this.#isDeaf(now)) this.#lost({ reason: 'deaf' });
    });
    socket.onclose = mine(({ code, reason }) => this.#lost({ close_code: code, reason }));
    this.#after(HELLO_MS_MAX, () => this.#lost({ reason: 'no answer' }));
  }

  #greet({ epoch, ping_ms = PING_MS, limits = {}, authenticated = true }) {
    this.#ping_ms = ping_ms;
    this.#each_ms = 1_000 / Math.max(1, Math.floor((limits.messages_per_s ?? MESSAGES_PER_S) / 2));
    const stranger = () => this.#lost({ close_code: UNKNOWN, reason: 'it wants to know who is calling' });
    if (!this.token.isUsed) return authenticated ? this.#resume(epoch) : stranger();
    const { timers } = this.#options;
    timers.clearTimeout(this.#timer); // what gives tokens takes its time, and how long the hub waits is its own
    const socket = this.#socket;
    const anew = this.#anew;
    (anew ? this.token.insteadOf(this.#said_token) : this.token.get()).then(
      (given) => {
        if (socket !== this.#socket) return;
        if (!given?.text) return authenticated ? this.#resume(epoch) : stranger();
        this.#hold(given);
        this.#hello = this.#request({ op: 'hello', token: given.text });
        this.#after(HELLO_MS_MAX, () => this.#lost({ reason: 'no answer' }));
      },
      (error) => socket === this.#socket && this.#lost({ reason: `no token: ${error.message}` }),
    );
  }

  /** This token is in force from now on, and replaced before it is not. */
  #hold({ text, renew_in_ms }) {
    const { timers } = this.#options;
    this.#said_token = text;
    this.#anew = false;
    timers.clearTimeout(this.#renewing);
    this.#renewing = renew_in_ms === undefined ? undefined : timers.setTimeout(() => this.#renew(), renew_in_ms);
  }

  #refreshWith(given) {
    this.#hold(given);
    this.#refresh = this.#request({ op: 'refresh', token: given.text });
  }

  /** The token on this connection is about to expire. Where no other is to be had, it is in force for as long as it is. */
  #renew() {
    const { timers } = this.#options;
    const again = () => {
      timers.clearTimeout(this.#renewing);
      this.#renewing = timers.setTimeout(() => this.#renew(), RENEW_AGAIN_MS);
    };
    this.refresh().catch(again);
  }

  /** The hub knows who is calling. Only now does it say what the history is called for them: who sees something else has another. */
  #resume(epoch) {
    // Each start of a hub has a name of its own, so another one says little: those who can resume ask, and hear `reset`
    // where it is not the history they know. Where nobody can, there is nothing to keep.
    const can_ask = [...this.#subscriptions.values()].some(({ mark }) => mark !== undefined);
    if (this.epoch !== undefined && this.epoch !== epoch && !can_ask) this.#beginAnew();
    this.epoch = epoch;
    this.#begun_anew = false;
    this.#greeted = true;
    this.#greeted_at = this.#options.timers.now();
    this.#listen();
    this.#awaited = new Set(this.#subscriptions.values());
    if (this.status === 'offline') this.#say('resuming');
    for (const subscription of this.#subscriptions.values()) this.#ask(subscription);
    this.#caughtUp();
  }

  /** Another history: nothing that was told can be built upon. */
  #beginAnew() {
    this.#tasks.clear();
    for (const subscription of this.#subscriptions.values()) subscription.renew();
  }

  /**
   * The hub is on another history than the one that was told here, as when a store was put back to an earlier time: it
   * says so for each subscription that asks to resume.
   */
  #reset(subscription, reason) {
    if (reason === 'epoch' && !this.#begun_anew) {
      this.#begun_anew = true;
      this.#beginAnew();
      // Those that were resumed already are told the rest of a picture that is void.
      for (const each of this.#subscriptions.values()) if (each !== subscription && each.isLive() && each.isOfTasks) this.#ask(each);
    }
    subscription?.void();
  }

  #caughtUp(subscription) {
    this.#awaited.delete(subscription);
    if (this.#greeted && !this.#awaited.size && this.status !== 'live') this.#say('live');
  }

  /**
   * Waits for a word from the hub; asks for one; gives the connection up. A late timer (a laptop that slept) asks first.
   * So does a client that had nothing to say yet: the hub closes those who never say a word.
   */
  #listen() {
    const now = this.#options.timers.now();
    const quiet_ms = now - this.#heard_at;
    const is_mute = !this.#said && now - this.#greeted_at >= this.#ping_ms;
    if (quiet_ms < this.#ping_ms && !is_mute) return this.#after(this.#ping_ms - quiet_ms, () => this.#listen());
    if (this.#asked) return this.#lost({ reason: 'silent' });
    this.#asked = true;
    this.#request({ op: 'ping' });
    const has_slept = quiet_ms >= 2 * this.#ping_ms;
    this.#after(has_slept ? AWAKE_MS : this.#ping_ms, () => this.#listen());
  }

  /** It is heard, and has not said for too long how far it has told: what is shown may be old. Counts have no marks. */
  #isDeaf(now) {
    if (!this.#greeted || now - this.#marked_at < 2 * this.#ping_ms) return false;
    const subscriptions = [...this.#subscriptions.values()].filter(({ isOfTasks }) => isOfTasks);
    return subscriptions.length > 0 && !subscriptions.some(({ catching_up }) => catching_up);
  }

  #lost({ close_code, reason }) {
    const steady = this.#greeted_at && this.#options.timers.now() - this.#greeted_at >= STEADY_MS;
    const bye = this.#bye;
    close_code = bye?.code ?? close_code;
    const comes_back = this.#comesBack(close_code);
    this.#drop();
    for (const subscription of this.#subscriptions.values()) subscription.cut();
    if (!comes_back && ((close_code >= 4500 && close_code <= 4999) || OUR_FAULT.has(close_code))) {
      const detail = `the hub refused the connection (${[close_code, reason].filter(Boolean).join(' ')})`;
      return this.#end('refused', { code: 'refused', detail, close_code, reason });
    }
    this.#failures = steady ? 0 : this.#failures;
    const { random } = this.#options;
    const [least, most] = bye?.retry_ms ?? [0, Math.min(RETRY_MS.first * 2 ** this.#failures, this.#isWatched() ? RETRY_MS.watched : RETRY_MS.last)];
    const retry_ms = Math.round(least + random() * (most - least));
    this.#failures++;
    this.#after(retry_ms, () => this.#open());
    this.#say('offline', { retry_ms, close_code, reason });
  }

  /** Whether it comes back for what the hub says of its token: with another, once. */
  #comesBack(close_code) {
    const { hasOthers, isUsed } = this.token;
    // A token that took longer than the hub waits was not refused.
    if (close_code === UNKNOWN && isUsed && hasOthers && !this.#greeted && this.#hello === undefined) return true;
    if (close_code === EXPIRED) this.#anew = hasOthers;
    if (close_code !== UNKNOWN || !hasOthers || this.#tried_anew) return false;
    return (this.#anew = this.#tried_anew = true);
  }

  /** Lets go of the socket, without waiting for its close: on a dead path that takes minutes. */
  #drop() {
    const socket = this.#socket;
    this.#socket = this.#bye = this.#hello = this.#refresh = undefined;
    this.#greeted = this.behind = this.#asked = this.#said = false;
    this.#greeted_at = 0;
    this.#options.timers.clearTimeout(this.#timer);
    this.#options.timers.clearTimeout(this.#sending);
    this.#options.timers.clearTimeout(this.#renewing);
    this.#sending = undefined;
    this.#outbox = [];
    this.#free_at = 0;
    socket?.close(1000);
  }

  #end(status, error) {
    this.#say(status, error);
    for (const subscription of this.#subscriptions.values()) subscription.fail(error);
    this.#subscriptions.clear();
  }

  #after(ms, fn) {
    this.#options.timers.clearTimeout(this.#timer);
    this.#timer = this.#options.timers.setTimeout(fn, ms);
  }

  #say(status, more) {
    this.status = status;
    this.#listeners.emit('status', { ...more, status, behind: this.behind });
  }

  #request(message) {
    const id = ++this.#ids;
    const { op, ...rest } = message;
    this.#outbox.push({ op, id, ...rest });
    if (this.#sending === undefined) this.#send();
    return id;
  }

  /** Sends what waits: a second's worth at once, then at the pace that leaves the hub no reason to close (4005). */
  #send() {
    const { timers } = this.#options;
    this.#sending = undefined;
    while (this.#outbox.length) {
      const now = timers.now();
      const from = Math.max(this.#free_at, now);
      const wait_ms = Math.ceil(from - now - (1_000 - this.#each_ms));
      if (wait_ms > 0) {
        this.#sending = timers.setTimeout(() => this.#send(), wait_ms);
        return;
      }
      this.#free_at = from + this.#each_ms;
      this.#socket.send(JSON.stringify(this.#outbox.shift()));
      this.#said = true;
    }
  }

  // Subscriptions.

  #add(request, handlers) {
    const name = `s${++this.#names}`;
    const remove = () => this.#remove(subscription);
    const tell_others = (task) => {
      for (const each of this.#subscriptions.values()) {
        if (each !== subscription && each.misses(task)) each.changed(task, `task.${task.status}`);
      }
    };
    const subscription = new Subscription(name, request, handlers, this.#tasks, remove, tell_others);
    if (this.status === 'closed' || this.status === 'refused') {
      queueMicrotask(() => subscription.fail({ code: this.status, detail: `the connection is ${this.status}` }));
      return subscription;
    }
    this.#subscriptions.set(name, subscription);
    if (this.#greeted) this.#ask(subscription);
    return subscription;
  }

  #ask(subscription) {
    const { name, request, mark } = subscription;
    const since = mark === undefined ? undefined : { epoch: subscription.epoch, rev: mark };
    this.#marked_at = this.#options.timers.now();
    subscription.catching_up = true;
    subscription.asked = this.#request({ op: 'subscribe', sub: name, ...request, ...(since && { since, snapshot: undefined }) });
  }

  #remove(subscription) {
    if (!this.#subscriptions.delete(subscription.name)) return;
    if (this.#greeted) this.#unask(subscription);
    for (const task_id of subscription.members) this.#release(task_id);
    this.#caughtUp(subscription);
  }

  #unask(subscription) {
    const { name } = subscription;
    const waiting = this.#outbox.findIndex(({ op, sub }) => op === 'subscribe' && sub === name);
    if (waiting >= 0) this.#outbox.splice(waiting, 1);
    // One that waits to be asked for anew may stand at the hub already.
    if (waiting < 0 || subscription.isLive()) this.#request({ op: 'unsubscribe', sub: name });
  }

  /** Forgets a task that is in nobody's picture. */
  #release(task_id) {
    for (const subscription of this.#subscriptions.values()) if (subscription.holds(task_id)) return;
    this.#tasks.forget(task_id);
  }

  /** One message from the hub. What it does not know it ignores: a newer hub may say more. */
  #take(message) {
    const { type, task_id } = message;
    const subscription = this.#subscriptions.get(message.sub);
    if (type === 'hello') {
      this.user_id = message.user_id;
      if (message.id === undefined) this.#greet(message);
      else if (message.id === this.#hello) this.#known(message);
      else if (message.id === this.#refresh) this.epoch = message.epoch; // for another sight it has another name
    } else if (type === 'subscribed') {
      const begun = subscription?.begin(message.mode);
      if (begun === false) this.#ask(subscription);
      if (subscription?.isOfTasks === false) this.#caughtUp(subscription);
    } else if (type === 'snapshot') {
      this.#marked_at = this.#heard_at; // a long one has no mark before its end
      subscription?.snapshot(message);
      this.#makeRoom();
    } else if (type === 'task') {
      const task = this.#tasks.apply(message.task);
      if (!task) return;
      for (const each of this.#subscriptions.values()) each.changed(task, message.event);
      this.#release(task.task_id);
      this.#makeRoom();
    } else if (type === 'progress') {
      const task = this.#tasks.progress(message);
      if (task) for (const each of this.#subscriptions.values()) each.progressed(task);
    } else if (type === 'gone') {
      const known = this.#tasks.gone(task_id, message.rev);
      if (known) for (const each of this.#subscriptions.values()) each.lost(task_id);
    } else if (type === 'log') {
      for (const each of this.#subscriptions.values()) each.logged(task_id, message.lines);
    } else if (type === 'stats') {
      if (this.#stats) this.#stats.last = message;
      for (const fn of this.#stats?.listeners ?? []) guarded(fn, message);
    } else if (type === 'queue' || type === 'limits' || type === 'schedule' || type === 'task_type') {
      this.#settings?.coming.push(message);
    } else if (type === 'settings') {
      this.#set(message);
    } else if (type === 'mark') {
      this.#marked_at = this.#heard_at;
      for (const each of this.#subscriptions.values()) if (each.marked(message.rev, this.epoch)) this.#caughtUp(each);
      if (this.behind) {
        this.behind = false;
        this.#say(this.status);
      }
    } else if (type === 'lag') {
      this.behind = true;
      this.#say(this.status);
      this.#listeners.emit('lag', message);
    } else if (type === 'reset') {
      this.#reset(subscription, message.reason);
    } else if (type === 'error') {
      this.#complaint(message);
    } else if (type === 'bye') {
      this.#bye = message;
    }
  }

  /** The hub has taken the token. */
  #known({ epoch }) {
    this.#hello = undefined;
    this.#tried_anew = false;
    this.#resume(epoch);
  }

  /** What came of settings is whole. */
  #set({ all }) {
    const settings = this.#settings;
    if (!settings) return;
    if (all) settings.known.clear();
    for (const { deleted, ...setting } of settings.coming.splice(0)) {
      const id = `${setting.type} ${setting.name}`;
      if (deleted) settings.known.delete(id);
      else settings.known.set(id, setting);
    }
    settings.whole = true;
    for (const fn of settings.listeners) guarded(fn, [...settings.known.values()]);
  }

  #complaint(message) {
    if (message.id !== undefined && message.id === this.#hello) {
      return this.#lost({ close_code: message.code === 'unauthenticated' ? UNKNOWN : undefined, reason: message.detail });
    }
    if (message.id !== undefined && message.id === this.#refresh) {
      // The one before is in force, and another is asked for.
      const { timers } = this.#options;
      if (this.token.hasOthers) this.#renewing = timers.setTimeout(() => this.#renew(), RENEW_AGAIN_MS);
    }
    const subscription = [...this.#subscriptions.values()].find(({ asked }) => asked === message.id);
    if (!subscription) return this.#listeners.emit('error', new HubError(message));
    if (NOT_NOW.has(message.code)) {
      const { timers, random } = this.#options;
      const stands = () => this.#greeted && this.#subscriptions.get(subscription.name) === subscription;
      const again = () => stands() && subscription.asked === message.id && this.#ask(subscription);
      timers.setTimeout(again, Math.round((0.5 + random()) * 1_000));
      return;
    }
    this.#subscriptions.delete(subscription.name);
    subscription.fail(message);
    this.#caughtUp(subscription);
  }

  /** Some at once: to find those that have been quiet the longest, all are looked at. */
  #makeRoom() {
    const over = this.#tasks.size - this.tasks_max;
    if (over <= 0) return;
    for (const task of this.#tasks.oldest(over + Math.floor(this.tasks_max / 50))) {
      this.#tasks.forget(task.task_id);
      for (const each of this.#subscriptions.values()) each.left(task);
    }
  }
}
