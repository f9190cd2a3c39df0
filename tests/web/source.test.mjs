import assert from 'node:assert/strict';
import { test } from 'node:test';
import { detailsText, keepSource } from '../../web/source.js';
import { FakeHub } from './fake_hub.mjs';

const DETAILS = '{"loss":1.10,"seed":12345678901234567890,"10":1,"2":2}';
const record = (task_id, rev, progress) => `{"task_id":"${task_id}","task_type":"x","status":"running","rev":${rev},"tick":0${progress}}`;

test('the details of a report are those that were sent, however it came', () => {
  const hub = new FakeHub();
  const seen = [];
  hub.connect({ heard: keepSource }).subscribe({}, ({ tasks, task }) => seen.push(...[tasks ?? task].flat().map(({ progress }) => progress && detailsText(progress))));
  hub.hello();
  const { sub } = hub.socket.sent.at(-1);
  const say = (text) => hub.socket.onmessage({ data: text });
  say(`{"type":"snapshot","sub":"${sub}","tasks":[${record('a', 1, '')},${record('b', 2, `,"progress":{"details":${DETAILS}}`)}],"more":false}`);
  say(`{"type":"progress","task_id":"a","rev":1,"tick":1,"progress":{"current":1,"details" : ${DETAILS} }}`);
  say(`{"type":"mark","rev":2}\n{"type":"task","event":"task.running","rev":3,"task":${record('b', 3, `,"progress":{"details":${DETAILS}}`)}}`);
  assert.deepEqual(seen, [undefined, DETAILS, DETAILS, DETAILS]);
});

test('a report without a source is written as its value', () => {
  keepSource({ progress: { current: 1 } }, '{"progress":{"current":1}}');
  assert.equal(detailsText({ details: { a: [1] } }), '{"a":[1]}');
  assert.equal(detailsText({}), '');
});
