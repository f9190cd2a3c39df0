import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GONE_MAX, STATUSES, Tasks, countByStatus, isAbove, matches, mentions, select } from '../../web/store.js';
import { task } from './fake_hub.mjs';

test('rev comes before tick', () => {
  const check = (a, b, expected) => assert.equal(isAbove(a, b), expected, JSON.stringify([a, b]));
  check({ rev: 2, tick: 0 }, { rev: 1, tick: 9 }, true);
  check({ rev: 1, tick: 9 }, { rev: 2, tick: 0 }, false);
  check({ rev: 1, tick: 2 }, { rev: 1, tick: 1 }, true);
  check({ rev: 1, tick: 1 }, { rev: 1, tick: 1 }, false);
  check({ rev: 1 }, { rev: 1, tick: 0 }, false);
});

test('any order and any repetition of the same messages gives the same picture', () => {
  const says = [
    ['apply', task('t1', 1)],
    ['apply', task('t1', 4, { status: 'running' })],
    ['progress', { task_id: 't1', rev: 4, tick: 1, progress: { percentage: 10 } }],
    ['progress', { task_id: 't1', rev: 4, tick: 2, progress: { percentage: 20 } }],
    ['apply', task('t2', 2)],
    ['gone', 't2', 5],
    ['apply', task('t3', 6)],
  ];
  let seed = 7;
  const random = () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
  for (let round = 0; round < 500; round++) {
    const started_with = seed;
    const tasks = new Tasks();
    const shuffled = [...says, ...says].map((say) => [random(), say]).sort(([a], [b]) => a - b);
    for (const [, [verb, ...values]] of shuffled) tasks[verb](...values);
    const shown = Object.fromEntries([...tasks.values()].map((t) => [t.task_id, [t.rev, t.tick, t.progress?.percentage]]));
    assert.deepEqual(shown.t3, [6, 0, undefined]);
    assert.equal(shown.t2, undefined, `t2 is back from the dead with seed ${started_with}`);
    assert.equal(shown.t1[0], 4);
    // A report that came before anything else of its task has no record to go to; a later one makes up for it.
    assert.ok([undefined, 10, 20].includes(shown.t1[2]));
  }
});

test('progress makes a new record and leaves the old one as it was', () => {
  const tasks = new Tasks();
  const before = tasks.apply(task('t1', 1, { status: 'running' }));
  const after = tasks.progress({ task_id: 't1', rev: 1, tick: 1, progress: { percentage: 5 } });
  assert.equal(before.progress, undefined);
  assert.equal(after.progress.percentage, 5);
  assert.equal(tasks.get('t1'), after);
});

test('a deleted task that is visible again comes back with its higher rev', () => {
  const tasks = new Tasks();
  tasks.apply(task('t1', 1));
  assert.ok(tasks.gone('t1', 5));
  assert.equal(tasks.apply(task('t1', 4)), null);
  assert.ok(tasks.apply(task('t1', 6)));
});

test('what is remembered of deleted tasks has a bound', () => {
  const tasks = new Tasks();
  for (let n = 0; n <= GONE_MAX; n++) tasks.gone(`t${n}`, 10);
  assert.ok(tasks.apply(task('t0', 1)), 'the first deletion is forgotten');
  assert.equal(tasks.apply(task('t1', 1)), null, 'the second is not');
});

test('the first to let go are those that ended longest ago', () => {
  const tasks = new Tasks();
  tasks.apply(task('t5', 5, { status: 'completed' })); // a snapshot has the newest first
  tasks.apply(task('t1', 1, { status: 'running' }));
  tasks.apply(task('t2', 2));
  tasks.apply(task('t3', 3, { status: 'failed' }));
  tasks.apply(task('t2', 4, { status: 'completed' }));
  assert.deepEqual(tasks.oldest(2).map(({ task_id }) => task_id), ['t3', 't2']);
  assert.deepEqual(tasks.oldest(9).map(({ task_id }) => task_id), ['t3', 't2', 't5', 't1']);
});

test('a filter is an AND of lists, each an OR', () => {
  const it = task('t1', 1, { task_type: 'ingest.pdf', user_id: 'u1', labels: { project_id: 'p1' } });
  const check = (filter, expected) => assert.equal(matches(filter, it), expected, JSON.stringify(filter));
  check({}, true);
  check({ task_id: ['t0', 't1'] }, true);
  check({ task_id: ['t0'] }, false);
  check({ task_type: ['report', 'ingest.*'] }, true);
  check({ task_type: ['ingest'] }, false);
  check({ task_type: ['*'] }, true);
  check({ queue: ['def*'], status: ['pending'] }, true);
  check({ queue: ['def*'], status: ['running'] }, false);
  check({ user_id: ['u1'] }, true);
  check({ user_id: ['u*'] }, false);
  check({ workflow_id: ['w1'] }, false);
  check({ labels: { project_id: ['p2', 'p1'] } }, true);
  check({ labels: { project_id: ['p1'], other: ['x'] } }, false);
});

test('text is looked for in title, type and id', () => {
  const it = task('0199-ab', 1, { title: 'March report' });
  for (const text of ['', '  ', 'MARCH', 'report', '99-A']) assert.ok(mentions(text, it), text);
  assert.ok(!mentions('default', it));
});

test('a list is sorted, cut, and says how long it would be', () => {
  const all = [task('t1', 9), task('t3', 3), task('t2', 5)];
  const ids = (view) => select(all, view).tasks.map(({ task_id }) => task_id);
  assert.deepEqual(ids({}), ['t1', 't2', 't3']);
  all[0] = { ...all[0], created_at: all[1].created_at };
  assert.deepEqual(ids({}), ['t2', 't3', 't1'], 'created in the same moment: the higher id is newer');
  assert.deepEqual(ids({ order: 'changed' }), ['t1', 't2', 't3']);
  assert.deepEqual(ids({ order: 'changed', limit: 1 }), ['t1']);
  assert.equal(select(all, { limit: 1 }).total, 3);
});

test('all seven statuses are counted', () => {
  const counts = countByStatus([task('t1', 1), task('t2', 2), task('t3', 3, { status: 'failed' })]);
  assert.deepEqual(Object.keys(counts), STATUSES);
  assert.equal(counts.pending, 2);
  assert.equal(counts.failed, 1);
  assert.equal(counts.running, 0);
});
