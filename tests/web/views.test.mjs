// The parts of the views that need no page: how things are said, and what an address means.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { areSet, filtersAddress, namesOf, readFilters, subscriptionFilter } from '../../web/views/filters.js';
import { afterWords } from '../../web/views/parts.js';
import { ruleWords, standsWords, summaryOf as queuesSummary } from '../../web/views/queues.js';
import { nextWords, skippedWords, summaryOf as schedulesSummary, whenWords } from '../../web/views/schedules.js';
import { defaultWords, summaryOf as typesSummary } from '../../web/views/types.js';
import { busyOf, presenceOf, summaryOf } from '../../web/views/workers.js';
import { behindBy, bytes, callbacksWords, complaint, percentage, rate, short, shownWords, span, standing, taken, waitsWords } from '../../web/views/words.js';
import { task } from './fake_hub.mjs';

test('a length of time is said in at most two units', () => {
  const check = (ms, expected) => assert.equal(span(ms), expected, String(ms));
  check(-5_000, '0 ms'); // the hub's clock is ahead of this one
  check(240, '240 ms');
  check(4_260, '4.2 s');
  check(59_999, '59 s');
  check(60_000, '1m');
  check(192_000, '3m 12s');
  check(3_600_000, '1h');
  check(7_500_000, '2h 5m');
  check(523_000_000, '6d 1h');
});

test('an age is said in one', () => {
  const check = (ms, expected) => assert.equal(short(ms), expected, String(ms));
  check(-1, 'now');
  check(999, 'now');
  check(12_500, '12s');
  check(3_599_000, '59m');
  check(86_399_000, '23h');
  check(172_800_000, '2d');
});

test('the hub is behind when somebody would notice', () => {
  const check = (ms, expected) => assert.equal(behindBy(ms), expected, String(ms));
  check(0, '');
  check(1_000, '');
  check(1_001, 'Live updates are 1 s behind.');
  check(3_900, 'Live updates are 3 s behind.');
  check(75_000, 'Live updates are 1m 15s behind.');
});

test('sizes and rates keep to the digits that matter', () => {
  assert.deepEqual([640, 12_288, 1_572_864].map(bytes), ['640 B', '12 KiB', '1.5 MiB']);
  assert.deepEqual([0, 0.123, 4.26, 42.4, 1_234.5].map(rate), ['0', '0.12', '4.3', '42', '1,235']);
});

test('a percentage comes from the worker, or from its counts, and stays on the scale', () => {
  const check = (progress, expected) => assert.equal(percentage({ progress }), expected, JSON.stringify(progress));
  check(undefined, undefined);
  check({}, undefined);
  check({ step: 'reading' }, undefined);
  check({ percentage: 0 }, 0);
  check({ percentage: 130 }, 100);
  check({ current: 1, total: 4 }, 25);
  check({ total: 4 }, 0);
  check({ current: 1, total: 0 }, undefined);
});

test('one line says where a task stands', () => {
  const now = Date.parse('2026-01-01T01:00:00.000Z');
  const check = (more, expected) => assert.equal(standing(task('t1', 1, more), now), expected);
  check({}, '');
  check({ status: 'running', started_at: '2026-01-01T00:57:00.000Z' }, 'for 3m');
  check({ status: 'running', started_at: '2026-01-01T00:57:00.000Z', progress: { step: 'parse', message: 'page 3' } }, 'parse · page 3');
  check({ status: 'running', cancel_requested_at: '2026-01-01T00:59:00.000Z' }, 'asked to stop');
  check({ status: 'failed', error: { kind: 'exit', message: 'disk full\nmore' } }, 'disk full');
  check({ status: 'failed', error: { kind: 'exit', message: 'Traceback (most recent call last):\n  File "x"\nValueError: no\n' } }, 'ValueError: no');
  check({ status: 'failed', error: { kind: 'poison', message: '' } }, 'poison');
  check({ status: 'failed' }, '');
  check({ status: 'completed', started_at: '2026-01-01T00:00:00.000Z', finished_at: '2026-01-01T00:00:04.200Z' }, 'took 4.2 s');
  check({ status: 'scheduled', run_at: '2026-01-01T03:00:00.000Z' }, 'in 2h');
  check({ status: 'scheduled', run_at: '2026-01-01T00:59:00.000Z' }, 'due');
  check({ status: 'scheduled', run_at: '2026-01-01T01:00:07.000Z', last_error: { kind: 'exit', message: 'disk full\nmore' } }, 'again in 7.0 s · disk full');
  check({ last_error: { kind: 'timeout', message: '' } }, 'again · timeout');
  check({ status: 'waiting', dependencies: 2 }, 'for 2 tasks');
});

test('how long a task runs is counted while it runs', () => {
  const now = Date.parse('2026-01-01T01:00:00.000Z');
  const check = (more, expected) => assert.equal(taken(task('t1', 1, more), now), expected);
  const started_at = '2026-01-01T00:57:00.000Z';
  check({}, '');
  check({ status: 'running', started_at }, 'running for 3m');
  check({ status: 'pending', started_at, tries: 1 }, '');
  check({ status: 'scheduled', started_at, tries: 1 }, '');
  check({ status: 'failed', started_at, finished_at: '2026-01-01T00:57:00.083Z' }, 'took 83 ms');
});

test('an address says what the list shows, and is read back as the same', () => {
  const address = '#/?status=running,failed&task_type=report.*&queue=gpu&user_id=ada&q=a+%26+b&order=changed';
  const filters = readFilters(address.slice(3));
  assert.equal(filtersAddress(filters), address);
  assert.deepEqual(subscriptionFilter(filters), { status: ['running', 'failed'], task_type: ['report.*'], queue: ['gpu'], user_id: ['ada'] });
  assert.equal(filters.q, 'a & b');
  assert.ok(areSet(filters));
});

test('an address of no filters, or of nonsense, shows everything', () => {
  for (const query of ['', '?', 'status=nonsense&order=constructor&what=ever']) {
    const filters = readFilters(query);
    assert.equal(filtersAddress(filters), '#/', query);
    assert.deepEqual(subscriptionFilter(filters), {});
    assert.ok(!areSet(filters));
  }
});

test('a complaint names what is known of the failure', () => {
  assert.equal(complaint({ status: 409, code: 'task_finished', message: 'it has ended' }), '409 · task_finished · it has ended');
  assert.equal(complaint({ code: 'unreachable', message: 'no' }), 'unreachable · no');
});

test('the end of a list says how many of how many, and from when', () => {
  const check = (more, expected) => assert.equal(shownWords({ n: 1_025, more: false, answered: true, ...more }), expected);
  check({}, '1,025 tasks');
  check({ n: 1 }, '1 task');
  check({ n: 0 }, '');
  check({ more: true, total: 2_814 }, '1,025 of 2,814 tasks');
  check({ more: true }, '1,025 tasks; there are more.');
  check({ more: true, total: 1_000 }, '1,025 tasks; there are more.'); // the counts are a second old
  check({ more: true, searched: true }, '1,025 found so far; older ones may match too.');
  check({ more: true, total: 50_000, is_full: true }, '1,025 of 50,000 tasks. Filter for what you look for; this page shows no more.');
  check({ live_at: '14:02:11' }, '1,025 tasks, as of 14:02:11');
  check({ answered: false }, 'Asking the hub…');
  check({ answered: false, n: 0 }, '');
  check({ answered: false, n: 1, live_at: '14:02:11' }, 'Not live: of what this page knew at 14:02:11, 1 task matches. There may be others.');
});

test('names are offered while there is a task of them, and of one run only while it is unfinished', () => {
  const tasks = [task('t1', 1, { queue: 'gpu' }), task('t2', 2, { queue: 'run.abc' }), task('t3', 3)];
  assert.deepEqual([...namesOf('queue', { slow: {}, 'run.xyz': {} }, tasks)].sort(), ['default', 'gpu', 'run.xyz', 'slow']);
  assert.deepEqual([...namesOf('task_type', {}, [])], []);
});

test('why a task waits is said in words', () => {
  const now = Date.parse('2026-11-21T14:02:11Z');
  const check = (reasons, expected) => assert.match(waitsWords(reasons, now), expected);
  check([], /^$/);
  check([{ kind: 'turn', ahead: 0 }], /^room at its workers: it is next$/);
  check([{ kind: 'turn', ahead: 999 }], /^its turn: 999 before it$/);
  check([{ kind: 'turn', ahead: 1_000 }], /1,000 or more before it/);
  check([{ kind: 'time', until: '2026-11-21T14:02:16Z' }, { kind: 'no_worker' }], /, in 5\.0 s; then for a worker that takes it: none is connected$/);
  check([{ kind: 'phase_of_the_moon' }], /^phase of the moon$/);
  check([{ kind: 'key_limit', limit: 1, running: 1 }], /^others with its key: 1 run, and 1 may at a time$/);
});

test('workers are said to be as busy as they are', () => {
  const worker = (link, concurrency, n) => ({ link, concurrency, running: Array.from({ length: n }, () => ({})) });
  const check = (all, summary, ...busy) => {
    assert.equal(summaryOf(all), summary);
    assert.deepEqual(all.map(busyOf), busy);
  };
  check([], '');
  check([worker('socket', 8, 3), worker('socket', 4, 4)], '2 workers, 7 of 12 places taken', '3 of 8 running', '4 of 4 running');
  check([worker('socket', 2, 3)], '1 worker, 3 of 3 places taken', '3 of 3 running'); // it came back with more than it takes now
  check([worker('http', 8, 8), worker('socket', 4, 0)], '2 workers, 8 tasks running', '8 running', '0 of 4 running');
  check([worker('http', 5, 1)], '1 worker, 1 task running', '1 running, asks for 4 more');
  check([worker('away', 3, 3)], '1 worker (1 just left and may come back), 3 tasks running', '3 running');
});

test('a worker says how it is connected', () => {
  const now = Date.parse('2026-01-01T01:00:00.000Z');
  const check = (more, expected) =>
    assert.equal(presenceOf({ link: 'socket', connected_at: '2026-01-01T00:57:00.000Z', last_heard_at: '2026-01-01T00:59:59.500Z', ...more }, now), expected);
  check({}, 'connected for 3m, heard just now');
  check({ link: 'http', last_heard_at: '2026-01-01T00:59:52.000Z' }, 'over HTTP for 3m, heard 8s ago');
  check({ link: 'away' }, 'connection lost, heard just now');
  check({ draining: true, connected_at: '2026-01-01T01:00:00.000Z' }, 'connected just now, heard just now, takes no more');
});

test('a queue says how it hands out and what stands in it', () => {
  assert.equal(ruleWords({ key_concurrency: 1, fair_by: 'none' }), '');
  assert.equal(
    ruleWords({ concurrency: 8, user_concurrency: 2, key_concurrency: 3, rate: { limit: 100, per_ms: 60_000, by: 'user' }, fair_by: 'key', ageing_ms: 60_000, retain_ms: 3_600_000, retain_count: 1_000, retain_bytes: 5_000 }),
    'at most 8 at once, 2 a user, 3 a key, at most 100 handed out in any 1m for each user, in turn between keys, one priority for each 1m of waiting, finished tasks kept for 1h, the newest 1,000 finished kept, 5,000 bytes of finished tasks kept',
  );
  assert.equal(standsWords({ waiting: 0, scheduled: 0, pending: 0, running: 0 }), 'nothing unfinished');
  assert.equal(standsWords({ waiting: 1, scheduled: 2, pending: 1_200, running: 3 }), '3 running, 1,200 ready, 2 scheduled, 1 waiting');
  assert.equal(queuesSummary([{ paused: true }, { paused: false }]), '2 queues, 1 paused');
  assert.equal(queuesSummary([]), '');
});

test('a task of a workflow says what it comes after, in few words', () => {
  const check = (ids, expected) => assert.equal(afterWords(ids, (id) => ({ 1: 'build', 2: 'test' })[id]), expected);
  check([], '');
  check(['1'], 'after build');
  check(['1', '2', '3'], 'after build, test, …'); // the third one is not known here
  check(['1', '2', '2', '1', '2'], 'after build, test, test and 2 more');
});

test('a schedule says when it is due and what was passed over', () => {
  const now = Date.parse('2026-01-01T12:00:00.000Z');
  assert.equal(whenWords({ every_ms: 1_000 }, now), 'every 1 s');
  assert.equal(whenWords({ every_ms: 1_000, overlap: 'allow' }, now), 'every 1 s');
  assert.equal(whenWords({ every_ms: 1_000, overlap: 'queue' }, now), 'every 1 s, one at a time');
  assert.equal(whenWords({ every_ms: 90_000, start_at: '2025-01-01T00:00:00.000Z' }, now), 'every 1m 30s');
  assert.equal(whenWords({ cron: '0 9 * * MON-FRI', time_zone: 'Europe/Berlin' }, now), '0 9 * * MON-FRI, Europe/Berlin');
  assert.match(whenWords({ cron: '@daily', start_at: '2026-01-02T00:00:00.000Z', end_at: '2026-02-02T00:00:00.000Z' }, now), /^@daily, UTC, from .+ on, until .+$/);
  assert.equal(nextWords({ paused: true, next: [] }, now), 'paused: nothing is submitted');
  assert.equal(nextWords({ paused: true, paused_reason: 'token_revoked' }, now), 'paused: the token of who made it was revoked');
  assert.equal(nextWords({ paused: false, next: [] }, now), 'not due any more');
  assert.match(nextWords({ paused: false, next: ['2026-01-01T12:05:00.000Z'] }, now), /^next .+, in 5m$/);
  assert.match(nextWords({ paused: false, next: ['2026-01-01T11:59:59.000Z'] }, now), /, now$/);
  const skipped = { due_at: '2026-01-01T11:00:00.000Z', reason: 'overlap' };
  assert.match(skippedWords({ skipped }, now), /was passed over: the task before it was not done$/);
  assert.match(skippedWords({ skipped: { ...skipped, reason: 'bad_weather' } }, now), /: bad weather$/);
  assert.equal(skippedWords({ skipped, last: { due_at: '2026-01-01T11:30:00.000Z' } }, now), '');
  assert.equal(schedulesSummary([{ paused: true }, {}]), '2 schedules, 1 paused');
  assert.equal(schedulesSummary([{}], true), 'The first 1 schedules, by name');
  assert.equal(schedulesSummary([]), '');
});

test('callbacks are said by their hosts, with what has not arrived', () => {
  const callbacks = [{ url: 'https://app.example/hook?a=1' }, { url: 'http://10.0.0.1:81/' }];
  const owed = [
    { url: callbacks[0].url, status: 'pending', last_error: 'answered 500' },
    { url: callbacks[0].url, status: 'failed' },
    { url: callbacks[0].url, status: 'pending' },
  ];
  assert.equal(callbacksWords(callbacks, []), 'app.example; 10.0.0.1:81');
  assert.equal(callbacksWords(callbacks, owed), 'app.example: 2 on the way, answered 500: 1 given up; 10.0.0.1:81');
});

test('what is declared of a type is said in one line', () => {
  assert.equal(defaultWords({ defaults: { queue: 'slow', priority: 5, labels: { a: 'b' } } }), 'queue slow, priority 5, labels {"a":"b"}');
  assert.equal(defaultWords({}), 'no defaults');
  assert.equal(typesSummary([{}, {}]), '2 declared types');
  assert.equal(typesSummary([{}], true), 'The first 1 declared types, by name');
  assert.equal(typesSummary([]), '');
});
