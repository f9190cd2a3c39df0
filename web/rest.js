// The hub's REST interface: one call, one answer, or a HubError that says why not. It keeps nothing and tries nothing twice.

/**
 * A refusal by the hub, or the news that it could not be reached.
 *
 * `code` is one of the hub's codes (`task_not_found`, `task_finished`, `unauthenticated`, …), or, from this module:
 * `unreachable`, `gone` (the task was deleted, or is not visible any more), `no_token` (the function that gives
 * tokens failed), `refused` (the hub does not want this connection; `close_code` says why), `closed` (by `hub.close()`). `status` is the HTTP status where there was one;
 * `field` or `limit` name the culprit where one is meant.
 */
export class HubError extends Error {
  constructor({ detail, title, code, ...rest }) {
    super(detail ?? title ?? code);
    Object.assign(this, rest, { name: 'HubError', code, title, detail });
  }
}

/** The calls an application makes. A hub from `connect()` has them all. */
export class Rest {
  /** `base` is the hub's URL with a slash at the end; `token` is the caller's (token.js); `fetch` is the browser's. */
  constructor({ base, token, fetch }) {
    Object.assign(this, { base, token, fetch });
  }

  /**
   * Submits a task. With `idempotency_key` (≤ 255 characters) the same call again gives the first task, for 24 h. Where the task
   * is `unique` and was there already, the answer has `existing: true`.
   */
  async submit(task, { idempotency_key } = {}) {
    const headers = idempotency_key === undefined ? {} : { 'idempotency-key': idempotency_key };
    const { text, response } = await this.fetched('POST', 'tasks', { body: task, headers });
    return response.headers.has('taskhub-existing') ? { ...parsed(text), existing: true } : parsed(text);
  }

  /**
   * Submits a workflow: `tasks`, `chain`, `group` or `chord`, with a `title` and whatever else holds for all of it. Gives
   * `{workflow, tasks}`.
   */
  submitWorkflow(workflow, { idempotency_key } = {}) {
    const headers = idempotency_key === undefined ? {} : { 'idempotency-key': idempotency_key };
    return this.call('POST', 'workflows', { body: workflow, headers });
  }

  /** A workflow with all of its tasks, and which depend on which: `{workflow, tasks, edges: [[from, to], …]}`. */
  workflow(task_id) {
    return this.call('GET', `workflows/${encodeURIComponent(task_id)}`);
  }

  /** The task, with payload and result. `wait_ms` (≤ 60,000, of which 55,000 count) holds the answer until it is final, or above `since_rev`. */
  get(task_id, { wait_ms, since_rev } = {}) {
    return this.call('GET', `tasks/${encodeURIComponent(task_id)}`, { query: { wait_ms, since_rev } });
  }

  /**
   * The same as the JSON text the hub keeps: a payload with numbers that JavaScript cannot hold, or with a form that matters,
   * is in it as it was sent. `members()` of json_text.js, which the hub serves beside this file, cuts it apart.
   */
  getText(task_id) {
    return this.text('GET', `tasks/${encodeURIComponent(task_id)}`);
  }

  /**
   * Where the result of a final task is: for a link, where it was uploaded as a file (`result_bytes`, `result_type`). A hub that
   * asks who calls wants `resultLink()`.
   */
  resultUrl(task_id) {
    return new URL(`api/v1/tasks/${encodeURIComponent(task_id)}/result`, this.base).href;
  }

  /** The same for one download that begins within half a minute, with a ticket in place of the token where there is one. */
  async resultLink(task_id) {
    const url = new URL(this.resultUrl(task_id));
    if (this.hasToken) url.searchParams.set('ticket', (await this.ticket()).ticket);
    return url.href;
  }

  /** Whether calls say who makes them. */
  get hasToken() {
    return this.token.isUsed;
  }

  /** `{ticket, expires_at}`: stands for the token in the query (`ticket`) of one GET, within half a minute. */
  ticket() {
    return this.call('POST', 'tickets');
  }

  /** Who calls: `{role, user_id, rights, limits, …}`. */
  me() {
    return this.call('GET', 'me');
  }

  /**
   * Makes a scoped token, for at most what the caller may: `allow` (`read`, `cancel`, `retry`, `submit`), `filter`, `hide`
   * (`payload`, `result`, `logs`), `ttl_ms` (at most a day). Gives `{token, expires_at}`.
   */
  mint(token) {
    return this.call('POST', 'tokens', { body: token });
  }

  /** The API tokens, without their texts. */
  async apiTokens() {
    const tokens = [];
    let cursor;
    do {
      const page = await this.call('GET', 'api-tokens', { query: { cursor } });
      tokens.push(...page.api_tokens);
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    return tokens;
  }

  /** Makes an API token: `name`, `role`, `user_id`, `task_types`, `queues`, `expires_at`. Its `token` is told this once. */
  createApiToken(token) {
    return this.call('POST', 'api-tokens', { body: token });
  }

  /** Revokes an API token, and all that was made with it. */
  revokeApiToken(name) {
    return this.call('DELETE', `api-tokens/${encodeURIComponent(name)}`);
  }

  /** One page of who did what, the newest first: `{rows, next_cursor}`. `query`: `limit`, `cursor`, `who`, `action`, `target`, … */
  audit(query = {}) {
    return this.call('GET', 'audit', { query });
  }

  /** One page of tasks: `{tasks, next_cursor}`. `query`: `status` (text or list), `task_type`, `queue`, `user_id`, `q`, `order`, `limit` (≤ 500), `cursor`, … */
  list(query = {}) {
    return this.call('GET', 'tasks', { query });
  }

  /** Cancels the task, or asks its worker to stop. */
  cancel(task_id, { reason } = {}) {
    return this.call('POST', `tasks/${encodeURIComponent(task_id)}/cancel`, { body: reason === undefined ? undefined : { reason } });
  }

  /** Runs a failed or cancelled task again; with another `payload`, where there is one. */
  retry(task_id, { payload } = {}) {
    return this.call('POST', `tasks/${encodeURIComponent(task_id)}/retry`, { body: payload === undefined ? undefined : { payload } });
  }

  /** Changes a task that waits: `priority`, `run_at`, `title`, `payload`, `max_attempts`; what is absent stays. */
  update(task_id, changes) {
    return this.call('PATCH', `tasks/${encodeURIComponent(task_id)}`, { body: changes });
  }

  /** Log lines: the newest `tail` (100), or up to `limit` after a `seq`. */
  async logs(task_id, { tail, after, limit } = {}) {
    return (await this.call('GET', `tasks/${encodeURIComponent(task_id)}/logs`, { query: { tail, after, limit } })).lines;
  }

  /** The task's transitions, oldest first. */
  async history(task_id) {
    return (await this.call('GET', `tasks/${encodeURIComponent(task_id)}/history`)).transitions;
  }

  /** The queues, each with what is set of it and what stands in it. */
  async queues() {
    return (await this.call('GET', 'queues')).queues;
  }

  /** One queue. */
  queue(name) {
    return this.call('GET', `queues/${encodeURIComponent(name)}`);
  }

  /** Sets a queue, all of it: `concurrency`, `key_concurrency`, `user_concurrency`, `rate`, `fair_by`, `ageing_ms`, `retain_ms`, `retain_count`, `retain_bytes`. */
  setQueue(name, settings) {
    return this.call('PUT', `queues/${encodeURIComponent(name)}`, { body: settings });
  }

  /** Hands out nothing of a queue any more, until it is resumed. */
  pauseQueue(name) {
    return this.call('POST', `queues/${encodeURIComponent(name)}/pause`);
  }

  /** Lets a paused queue go on. */
  resumeQueue(name) {
    return this.call('POST', `queues/${encodeURIComponent(name)}/resume`);
  }

  /** Cancels what does not run of a queue: `{matched, changed}`. */
  purgeQueue(name) {
    return this.call('POST', `queues/${encodeURIComponent(name)}/purge`);
  }

  /** One page of callbacks that are owed or were given up: `{callbacks, next_cursor}`. `query`: `status` (`pending`, `failed`), `task_id`, `limit`, `cursor`. */
  callbacks(query = {}) {
    return this.call('GET', 'callbacks', { query });
  }

  /** Has a callback tried at once, also one that was given up. */
  retryCallback(callback_id) {
    return this.call('POST', `callbacks/${encodeURIComponent(callback_id)}/retry`);
  }

  /** One page of schedules by name: `{schedules, next_cursor}`. `query`: `limit` (≤ 1,000), `cursor`. */
  schedules(query = {}) {
    return this.call('GET', 'schedules', { query });
  }

  /** One schedule, with its next due times and how its last task did. */
  schedule(name) {
    return this.call('GET', `schedules/${encodeURIComponent(name)}`);
  }

  /** Sets a schedule, all of it: `cron` or `every_ms`, `time_zone`, `task`, `overlap`, `catch_up`, … */
  setSchedule(name, schedule) {
    return this.call('PUT', `schedules/${encodeURIComponent(name)}`, { body: schedule });
  }

  /** Deletes a schedule. Its tasks stay. */
  deleteSchedule(name) {
    return this.call('DELETE', `schedules/${encodeURIComponent(name)}`);
  }

  /** Submits its task now, whatever is due. */
  runSchedule(name) {
    return this.call('POST', `schedules/${encodeURIComponent(name)}/run`);
  }

  /** Submits nothing until it is resumed. */
  pauseSchedule(name) {
    return this.call('POST', `schedules/${encodeURIComponent(name)}/pause`);
  }

  /** Lets a paused schedule go on; nothing is caught up. */
  resumeSchedule(name) {
    return this.call('POST', `schedules/${encodeURIComponent(name)}/resume`);
  }

  /** One page of declared task types by name: `{task_types, next_cursor}`. `query`: `limit` (≤ 100), `cursor`. */
  taskTypes(query = {}) {
    return this.call('GET', 'task-types', { query });
  }

  /** One declared task type. */
  taskType(name) {
    return this.call('GET', `task-types/${encodeURIComponent(name)}`);
  }

  /** Declares a task type, all of it: `title`, `description`, `defaults`, `payload_schema`. */
  setTaskType(name, type) {
    return this.call('PUT', `task-types/${encodeURIComponent(name)}`, { body: type });
  }

  /** Takes back what is declared of a task type. Its tasks stay. */
  deleteTaskType(name) {
    return this.call('DELETE', `task-types/${encodeURIComponent(name)}`);
  }

  /** The connected workers. */
  async workers() {
    return (await this.call('GET', 'workers')).workers;
  }

  async call(method, path, request) {
    return parsed(await this.text(method, path, request));
  }

  /** The text of the answer. */
  async text(method, path, request) {
    return (await this.fetched(method, path, request)).text;
  }

  /**
   * The text of the answer, and the answer that it came in. The hub looks at who calls before it does anything, so that a call
   * that it refused for its token is safe to make again, once, with another.
   */
  async fetched(method, path, request) {
    const said = await this.#token(() => this.token.get());
    try {
      return await this.#fetched(method, path, said, request);
    } catch (error) {
      if (error.status !== 401 || !this.token.hasOthers) throw error;
      const other = await this.#token(() => this.token.insteadOf(said));
      return this.#fetched(method, path, other, request);
    }
  }

  /** The text of a token, if calls have one. */
  async #token(give) {
    if (!this.token.isUsed) return undefined;
    try {
      return (await give())?.text;
    } catch (cause) {
      throw new HubError({ code: 'no_token', detail: `no token could be had (${cause.message})`, cause });
    }
  }

  async #fetched(method, path, token, { query = {}, body, headers = {} } = {}) {
    const url = new URL(`api/v1/${path}`, this.base);
    for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, value);
    let response, text;
    try {
      if (token) headers = { ...headers, authorization: `Bearer ${token}` };
      if (body !== undefined) headers = { ...headers, 'content-type': 'application/json' };
      const { fetch } = this; // called plainly: a browser fetch wants no other `this`
      response = await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
      text = await response.text();
    } catch (cause) {
      throw new HubError({ code: 'unreachable', detail: `the hub could not be reached (${cause.message})`, cause });
    }
    if (response.ok) return { text, response };
    throw new HubError({ code: 'internal', title: `HTTP ${response.status}`, ...parsed(text), status: response.status });
  }
}

/** JSON, or undefined for what is none. */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
