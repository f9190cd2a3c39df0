// What the transcripts do not reach: handles, iterators, tokens, waits, bounds and REST.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeHub, task } from './fake_hub.mjs';

test('finished resolves with the final task', async () => {
  const hub = new FakeHub();
  const client = hub.connect();
  const finished = client.task('t1').finished();
  hub.hello();
  assert.deepEqual(hub.socket.sent[0].filter, { task_id: ['t1'] });
  hub.answer([task('t1', 1)]);
  hub.say({ type: 'task', event: 'task.running', rev: 2, task: task('t1', 2, { status: 'running' }) });
  hub.say({ type: 'task', event: 'task.completed', rev: 3, task: task('t1', 3, { status: 'completed', result: 42 }) });
  assert.equal((await finished).result, 42);
  assert.equal(hub.sent.at(-1).op, 'unsubscribe', 'nobody listens any more');
});

test('finished fetches a result that was too large for an event', async () => {
  const hub = new FakeHub();
  const fetch = async (url) => {
    assert.equal(url.pathname, '/api/v1/tasks/t1');
    return new Response(JSON.stringify(task('t1', 3, { status: 'completed', result: 'long' })));
  };
  const finished = hub.connect({ fetch }).task('t1').finished();
  hub.hello();
  hub.answer([task('t1', 3, { status: 'completed', result_omitted: true })]);
  assert.equal((await finished).result, 'long');
});

test('finished rejects for a task that is gone, or never was, or cannot be asked for', async () => {
  const gone = new FakeHub();
  const first = gone.connect().task('t1').finished();
  gone.hello();
  gone.answer([task('t1', 1)]);
  gone.say({ type: 'gone', task_id: 't1', rev: 2 });
  await assert.rejects(first, { code: 'gone' });

  const never = new FakeHub();
  const second = never.connect().task('t1').finished();
  never.hello();
  never.answer([]);
  await assert.rejects(second, { code: 'gone' });

  const refused = new FakeHub();
  const third = refused.connect().task('t1').finished();
  refused.close(4501);
  await assert.rejects(third, { code: 'refused', close_code: 4501 });

  const closed = new FakeHub();
  const client = closed.connect();
  const fourth = client.task('t1').finished();
  client.close();
  await assert.rejects(fourth, { code: 'closed' });
  await assert.rejects(client.task('t2').finished(), { code: 'closed' });
  assert.equal(closed.timers.size, 0, 'a closed client waits for nothing');
});

test('finished does not take the end before a retry for the end after it', async () => {
  const hub = new FakeHub();
  const handle = hub.connect().task('t1');
  const off = handle.on('change', () => {});
  hub.hello();
  hub.answer([task('t1', 5, { status: 'failed' })]);
  assert.equal((await handle.finished()).rev, 5);
  const again = handle.finished({ since_rev: 6 });
  hub.say({ type: 'task', event: 'task.retrying', rev: 6, task: task('t1', 6) });
  hub.say({ type: 'task', event: 'task.completed', rev: 8, task: task('t1', 8, { status: 'completed' }) });
  assert.equal((await again).rev, 8);
  off();
  assert.equal(handle.task, undefined, 'what nobody keeps up to date is not shown');
});

test('finished survives a cut', async () => {
  const hub = new FakeHub();
  const finished = hub.connect().task('t1').finished();
  hub.hello();
  hub.answer([task('t1', 1)]);
  hub.close();
  hub.timers.pass(500);
  hub.hello();
  const { id, sub, since } = hub.sent.at(-1);
  assert.deepEqual(since, { epoch: 'e1', rev: 1 });
  hub.say({ type: 'subscribed', id, sub, mode: 'resumed', rev: 9 });
  hub.say({ type: 'task', event: 'task.failed', rev: 9, task: task('t1', 9, { status: 'failed' }) });
  assert.equal((await finished).status, 'failed');
});

test('a handle tells progress, changes and log lines, and takes one subscription for many listeners', () => {
  const hub = new FakeHub();
  const client = hub.connect();
  const told = [];
  const offs = [
    client.task('t1').on('change', ({ status }) => told.push(status)),
    client.task('t1').on('progress', ({ percentage }) => told.push(percentage)),
    client.task('t1').on('progress', ({ percentage }) => told.push(-percentage)),
  ];
  hub.hello();
  assert.equal(hub.socket.sent.length, 1);
  hub.answer([task('t1', 1, { status: 'running' })]);
  hub.say({ type: 'progress', task_id: 't1', rev: 1, tick: 1, attempt: 1, progress: { percentage: 5 } });
  offs.push(client.task('t1').on('log', (lines) => told.push(lines[0].message)));
  assert.deepEqual(hub.socket.sent.at(-1).logs, { tail: 100 });
  hub.answer([task('t1', 1, { status: 'running' })]);
  hub.say({ type: 'log', task_id: 't1', lines: [{ seq: 1, message: 'hi' }] });
  assert.deepEqual(told, ['running', 5, -5, 'hi']);
  offs.forEach((off) => off());
  assert.deepEqual(hub.sent.slice(-2).map(({ op }) => op), ['unsubscribe', 'unsubscribe']);
});

test('an end is told once to each who listens for it, and once more after a retry', async () => {
  const hub = new FakeHub();
  const handle = hub.connect().task('t1');
  const told = [];
  handle.on('final', ({ status, rev }) => told.push(`first ${status} ${rev}`));
  hub.hello();
  hub.answer([task('t1', 1, { status: 'running' })]);
  const ended = task('t1', 2, { status: 'failed' });
  hub.say({ type: 'task', event: 'task.failed', rev: 2, task: ended });
  const off = handle.on('final', () => told.push('too late to be told'));
  off();
  handle.on('final', ({ rev }) => told.push(`late ${rev}`));
  await settled();
  hub.close();
  hub.timers.pass(15_000);
  hub.hello({ rev: 2 });
  hub.answer([ended]);
  assert.deepEqual(told, ['first failed 2', 'late 2']);
  hub.say({ type: 'task', event: 'task.pending', rev: 3, task: task('t1', 3) });
  hub.say({ type: 'task', event: 'task.completed', rev: 5, task: task('t1', 5, { status: 'completed' }) });
  assert.deepEqual(told.slice(2), ['first completed 5', 'late 5']);
});

test('a fresh token is sent before the old one runs out', async () => {
  const hub = new FakeHub();
  const tokens = ['old', 'new'];
  const client = hub.connect({ token: () => tokens.shift() });
  hub.hello();
  await settled();
  assert.deepEqual(hub.sent, [{ op: 'hello', id: 1, token: 'old' }]);
  hub.hello({ id: 1 });
  await client.refresh();
  assert.deepEqual(hub.sent, [{ op: 'refresh', id: 2, token: 'new' }]);
});

test('a page that slept does not take the hub for deaf', () => {
  const hub = new FakeHub();
  hub.connect().subscribe();
  hub.hello({ ping_ms: 10_000 });
  hub.answer();
  hub.timers.sleep(3_600_000);
  hub.say({ type: 'task', event: 'task.created', rev: 2, task: task('t1', 2) });
  assert.equal(hub.sockets.length, 1);
  assert.equal(hub.statuses.at(-1).status, 'live');
});

test('what is not wanted any more is not asked for, when requests wait for their turn', () => {
  const hub = new FakeHub();
  const client = hub.connect();
  hub.hello({ limits: { messages_per_s: 4 } });
  const many = [1, 2, 3, 4].map(() => client.subscribe());
  assert.deepEqual(hub.sent.map(({ sub }) => sub), ['s1', 's2']);
  many[2].close();
  many[0].close();
  hub.timers.pass(2_000);
  assert.deepEqual(hub.sent.map(({ op, sub }) => `${op} ${sub}`), ['subscribe s4', 'unsubscribe s1']);
});

test('the iterator gives the picture, then what happens, and closes when it is left', async () => {
  const hub = new FakeHub();
  const client = hub.connect();
  const subscription = client.subscribe();
  hub.hello();
  hub.answer([task('t1', 1, { status: 'running' })]);
  const seen = [];
  for await (const event of subscription) {
    seen.push(event.type);
    if (seen.length === 1) {
      hub.say({ type: 'progress', task_id: 't1', rev: 1, tick: 1, progress: { percentage: 1 } });
      hub.say({ type: 'progress', task_id: 't1', rev: 1, tick: 2, progress: { percentage: 2 } });
      hub.say({ type: 'gone', task_id: 't1', rev: 2 });
    }
    if (event.type === 'progress') assert.equal(event.task.progress.percentage, 2, 'only the newest progress waits');
    if (event.type === 'gone') break;
  }
  assert.deepEqual(seen, ['snapshot', 'progress', 'gone']);
  assert.equal(hub.sent.at(-1).op, 'unsubscribe');
});

test('a reader that is too slow gets one snapshot instead of all it missed', async () => {
  const hub = new FakeHub();
  const client = hub.connect();
  const subscription = client.subscribe();
  hub.hello();
  hub.answer([]);
  const reader = subscription[Symbol.asyncIterator]();
  assert.equal((await reader.next()).value.type, 'snapshot');
  for (let rev = 2; rev <= 1_100; rev++) hub.say({ type: 'task', event: 'task.created', rev, task: task(`t${rev}`, rev) });
  const { value } = await reader.next();
  assert.equal(value.type, 'snapshot');
  assert.ok(value.tasks.length > 1_000);
  client.close();
  await assert.rejects(async () => {
    while (!(await reader.next()).done);
  }, { code: 'closed' });
});

test('waits double with full jitter up to a bound, and start anew after a connection that held', () => {
  const hub = new FakeHub();
  hub.random = 1;
  hub.connect();
  const waits = () => hub.statuses.flatMap(({ retry_ms }) => retry_ms ?? []);
  for (let n = 0; n < 8; n++) {
    hub.close();
    hub.timers.pass(waits().at(-1));
  }
  assert.deepEqual(waits(), [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
  hub.hello();
  hub.close(4006); // accepted and sent away at once: that did not hold
  assert.equal(waits().at(-1), 15_000);
  hub.random = 0;
  hub.timers.pass(15_000);
  hub.hello();
  hub.timers.pass(10_000);
  hub.close();
  assert.equal(waits().at(-1), 0);
  hub.random = 1;
  hub.timers.pass(0);
  hub.close();
  assert.equal(waits().at(-1), 1_000);
});

/** A document that is looked at, or is not. */
const fakePage = () => {
  const page = new EventTarget();
  page.visibilityState = 'visible';
  page.turn = (state) => {
    page.visibilityState = state;
    page.dispatchEvent(new Event('visibilitychange'));
  };
  return page;
};

test('a page that somebody looks at does not wait long, and one that comes into view not at all', () => {
  const hub = new FakeHub();
  const page = fakePage();
  hub.random = 1;
  const client = hub.connect({ page });
  const waits = () => hub.statuses.flatMap(({ retry_ms }) => retry_ms ?? []);
  for (let n = 0; n < 5; n++) {
    hub.close();
    hub.timers.pass(waits().at(-1));
  }
  assert.deepEqual(waits(), [500, 1_000, 2_000, 3_000, 3_000]);
  page.turn('hidden');
  hub.close();
  assert.equal(waits().at(-1), 15_000);
  const { length } = hub.sockets;
  page.turn('visible');
  assert.equal(hub.sockets.length, length + 1);
  page.turn('visible');
  assert.equal(hub.sockets.length, length + 1, 'one attempt is enough');
  hub.hello();
  assert.equal(client.status, 'live');
  client.close();
  page.turn('visible');
  assert.equal(hub.sockets.length, length + 1);
});

test('a laptop that wakes asks at once, and does not wait long for an answer', () => {
  const hub = new FakeHub();
  const page = fakePage();
  hub.connect({ page }).subscribe();
  hub.hello();
  hub.answer();
  hub.sent;
  hub.timers.sleep(3_600_000);
  page.turn('visible');
  assert.deepEqual(hub.sent.map(({ op }) => op), ['ping']);
  hub.timers.pass(2_999);
  assert.equal(hub.sockets.length, 1);
  hub.random = 0;
  hub.timers.pass(1);
  assert.equal(hub.statuses.at(-1).reason, 'silent');
  hub.timers.pass(0);
  assert.equal(hub.sockets.length, 2);

  // It was asked shortly before it slept.
  hub.hello();
  hub.answer();
  hub.timers.pass(25_000);
  assert.equal(hub.sent.at(-1).op, 'ping');
  page.turn('visible');
  assert.equal(hub.sockets.length, 2);
  hub.timers.pass(3_000);
  assert.equal(hub.sockets.length, 3);

  // It was only a moment, or the connection is well after all.
  hub.hello();
  hub.answer();
  page.turn('visible');
  assert.deepEqual(hub.sent.map(({ op }) => op), ['subscribe']);
  hub.timers.sleep(3_600_000);
  page.turn('visible');
  hub.say({ type: 'pong', id: hub.sent[0].id }, { type: 'mark', rev: 2 });
  hub.timers.pass(20_000);
  assert.equal(hub.sockets.length, 3);
});

test('a hub that accepts and says nothing is given up', () => {
  const hub = new FakeHub();
  hub.connect();
  hub.timers.pass(9_999);
  assert.equal(hub.statuses.length, 0);
  hub.timers.pass(1);
  assert.equal(hub.statuses.at(-1).status, 'offline');
  assert.ok(hub.sockets[0].closed);
});

test('reconnect tries at once, and only when offline', () => {
  const hub = new FakeHub();
  hub.random = 1;
  const client = hub.connect();
  client.reconnect();
  assert.equal(hub.sockets.length, 1);
  hub.close();
  client.reconnect();
  client.reconnect();
  assert.equal(hub.sockets.length, 2);
  hub.hello();
  assert.equal(client.status, 'live');
});

test('what a left socket still says is not heard', () => {
  const hub = new FakeHub();
  const client = hub.connect();
  client.subscribe();
  hub.timers.pass(10_000);
  const [left] = hub.sockets;
  left.onmessage({ data: '{"type":"hello","epoch":"e0","rev":1}' });
  left.onclose({ code: 4503 });
  assert.equal(client.status, 'offline');
  assert.equal(client.epoch, undefined);
});

test('each connection asks for a token and sends it before anything else', async () => {
  const hub = new FakeHub();
  let n = 0;
  const client = hub.connect({ token: async () => `token ${++n}` });
  client.subscribe();
  hub.hello();
  assert.deepEqual(hub.sent, []);
  await settled();
  assert.deepEqual(hub.sent.map(({ op, token }) => [op, token]), [['hello', 'token 1']]);
  hub.hello({ id: 1, user_id: 'u1' });
  assert.equal(client.user_id, 'u1');
  assert.deepEqual(hub.sent.map(({ op }) => op), ['subscribe']);
  hub.close(4004);
  hub.timers.pass(500);
  hub.hello();
  await settled();
  const [{ id, token }] = hub.sent;
  assert.equal(token, 'token 2');
  hub.hello({ id });
  await client.refresh();
  assert.deepEqual([hub.sent.at(-1).op, n], ['refresh', 3]);
});

test('a token that cannot be had is a reason to come back', async () => {
  const hub = new FakeHub();
  const client = hub.connect({ token: () => Promise.reject(new Error('login is down')) });
  hub.hello();
  await settled();
  assert.equal(client.status, 'offline');
  assert.match(hub.statuses.at(-1).reason, /login is down/);
});

test('settings are told whole, at first and after each change', () => {
  const hub = new FakeHub();
  const client = hub.connect();
  const told = [];
  const off = client.settings((settings) => told.push(settings.map(({ name, rev }) => `${name} ${rev}`).join()));
  hub.hello();
  const [{ id, sub, settings }] = hub.sent;
  assert.equal(settings, true);
  hub.say({ type: 'subscribed', id, sub, mode: 'snapshot', rev: 9 });
  assert.equal(client.status, 'live');
  hub.say({ type: 'queue', name: 'a', rev: 1 });
  hub.say({ type: 'queue', name: 'b', rev: 2 });
  assert.deepEqual(told, [], 'it is not whole yet');
  hub.say({ type: 'settings', rev: 2, all: true });
  hub.say({ type: 'queue', name: 'a', rev: 3 });
  hub.say({ type: 'queue', name: 'b', rev: 4, deleted: true });
  hub.say({ type: 'settings', rev: 4 });
  hub.say({ type: 'limits', name: 'limits', rev: 7 });
  hub.say({ type: 'settings', rev: 7, all: true });
  assert.deepEqual(told, ['a 1,b 2', 'a 3', 'limits 7']);
  off();
  assert.deepEqual(hub.sent.map(({ op }) => op), ['unsubscribe']);
});

test('stats are one subscription for all who listen', () => {
  const hub = new FakeHub();
  const client = hub.connect();
  const told = [];
  const off = [client.stats(({ rev }) => told.push(rev)), client.stats(({ rev }) => told.push(rev * 10))];
  hub.hello();
  const [{ id, sub, stats, filter }] = hub.sent;
  assert.deepEqual([stats, filter], [true, undefined]);
  hub.say({ type: 'subscribed', id, sub, rev: 1 });
  assert.equal(client.status, 'live');
  hub.say({ type: 'stats', rev: 7, tasks: {} });
  off.push(client.stats(({ rev }) => told.push(-rev)));
  assert.deepEqual(told, [7, 70, -7]);
  off.forEach((each) => each());
  assert.deepEqual(hub.sent.map(({ op }) => op), ['unsubscribe']);
});

test('a task is told to each subscription it matches, and leaves each on its own', () => {
  const hub = new FakeHub();
  const client = hub.connect();
  const told = [];
  hub.hello();
  for (const status of ['pending', 'running']) {
    client.subscribe({ filter: { status: [status] } }, ({ type, task }) => type !== 'snapshot' && told.push([status, type, task.rev]));
    hub.answer([]);
  }
  hub.say({ type: 'task', event: 'task.created', rev: 2, task: task('t1', 2) });
  hub.say({ type: 'task', event: 'task.running', rev: 3, task: task('t1', 3, { status: 'running' }) });
  hub.say({ type: 'progress', task_id: 't1', rev: 3, tick: 1, progress: {} });
  assert.deepEqual(told, [['pending', 'task', 2], ['pending', 'leave', 3], ['running', 'task', 3], ['running', 'progress', 3]]);
});

test('beyond tasks_max the task that ended longest ago leaves', () => {
  const hub = new FakeHub();
  const client = hub.connect({ tasks_max: 2 });
  const left = [];
  const subscription = client.subscribe({}, { leave: ({ task }) => left.push(task.task_id) });
  hub.hello();
  hub.answer([task('t1', 1), task('t2', 2, { status: 'completed' })], { rev: 2 });
  hub.say({ type: 'task', event: 'task.created', rev: 3, task: task('t3', 3) });
  assert.deepEqual(left, ['t2']);
  assert.deepEqual(subscription.tasks.map(({ task_id }) => task_id), ['t1', 't3']);
});

test('a task in nobody\'s picture takes no room', () => {
  const hub = new FakeHub();
  const left = [];
  hub.connect({ tasks_max: 2 }).subscribe({ filter: { status: ['running'] } }, { leave: ({ task }) => left.push(task.task_id) });
  hub.hello();
  hub.answer([task('t1', 1, { status: 'running' })]);
  hub.say({ type: 'task', event: 'task.created', rev: 2, task: task('t2', 2) });
  hub.say({ type: 'task', event: 'task.running', rev: 3, task: task('t3', 3, { status: 'running' }) });
  assert.deepEqual(left, []);
});

test('a task fetched by REST can be taken into the picture', () => {
  const hub = new FakeHub();
  const told = [];
  const subscription = hub.connect().subscribe({ filter: { queue: ['default'] } }, { progress: ({ task }) => told.push(task.tick) });
  hub.hello();
  hub.answer([]);
  subscription.include([task('t1', 1, { status: 'running' }), task('t2', 1, { queue: 'other' })]);
  hub.say({ type: 'progress', task_id: 't1', rev: 1, tick: 6, progress: {} });
  hub.say({ type: 'progress', task_id: 't2', rev: 1, tick: 6, progress: {} });
  assert.deepEqual(told, [6]);
});

test('a listener that throws stops neither the others nor the socket', (t) => {
  const reported = t.mock.method(console, 'error', () => {});
  const hub = new FakeHub();
  const client = hub.connect();
  let told = 0;
  client.subscribe({}, () => {
    throw new Error('mine');
  });
  client.subscribe({}, () => told++);
  hub.hello();
  hub.say(...hub.sent.map(({ sub }) => ({ type: 'snapshot', sub, tasks: [], more: false })));
  assert.equal(told, 1);
  assert.equal(reported.mock.callCount(), 1);
});

test('REST: the request is as documented, the answer is handed over', async () => {
  const requests = [];
  const fetch = async (url, request) => {
    requests.push([request.method, `${url.pathname}${url.search}`, request.body, request.headers]);
    return new Response(JSON.stringify({ lines: [1], transitions: [2], workers: [3], task_id: 't1' }));
  };
  const client = new FakeHub().connect({ fetch, token: 'secret' });
  const authorization = 'Bearer secret';
  assert.equal((await client.submit({ task_type: 'x' }, { idempotency_key: 'k' })).task_id, 't1');
  assert.equal('existing' in (await client.submit({ task_type: 'x' })), false);
  requests.pop();
  await client.get('a/b', { wait_ms: 5 });
  await client.list({ status: ['failed', 'running'], limit: 5 });
  await client.cancel('t1');
  await client.retry('t1');
  assert.deepEqual(await client.logs('t1', { tail: 9 }), [1]);
  assert.deepEqual(await client.history('t1'), [2]);
  assert.deepEqual(await client.workers(), [3]);
  assert.deepEqual(requests[0], [
    'POST', '/api/v1/tasks', '{"task_type":"x"}', { 'idempotency-key': 'k', authorization, 'content-type': 'application/json' },
  ]);
  assert.deepEqual(requests[1], ['GET', '/api/v1/tasks/a%2Fb?wait_ms=5', undefined, { authorization }]);
  assert.equal(requests[2][1], '/api/v1/tasks?status=failed%2Crunning&limit=5');
  assert.deepEqual(requests[3].slice(0, 3), ['POST', '/api/v1/tasks/t1/cancel', undefined]);
  assert.equal(requests[5][1], '/api/v1/tasks/t1/logs?tail=9');
});

test('REST: a task can be had as the text the hub keeps', async () => {
  const text = '{"task_id":"t1","payload":{"id":12345678901234567890,"price":1.10}}';
  const client = new FakeHub().connect({ fetch: async () => new Response(text) });
  assert.equal(await client.getText('t1'), text);
});

test('REST: a refusal says what the hub said, and a hub that is not there is a refusal too', async () => {
  const answers = [
    new Response('{"type":"about:blank","title":"Conflict","status":409,"code":"task_finished","detail":"it has ended"}', { status: 409 }),
    new Response('<html>bad gateway</html>', { status: 502 }),
    new Response(null, { status: 204 }),
  ];
  const client = new FakeHub().connect({ fetch: async () => answers.shift() ?? Promise.reject(new TypeError('fetch failed')) });
  await assert.rejects(client.cancel('t1'), { name: 'HubError', code: 'task_finished', status: 409, message: 'it has ended' });
  await assert.rejects(client.cancel('t1'), { code: 'internal', status: 502, message: 'HTTP 502' });
  assert.equal(await client.retry('t1'), undefined);
  await assert.rejects(client.get('t1'), { code: 'unreachable' });
});

/** Lets every promise that can settle, settle. */
const settled = () => new Promise((resolve) => setImmediate(resolve));
