// Drives the client through the golden conversations in tests/transcripts; its README says what a line means.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { FakeHub } from './fake_hub.mjs';

const folder = new URL('../transcripts/', import.meta.url);

for (const name of readdirSync(folder).filter((name) => name.endsWith('.jsonl'))) {
  const lines = readFileSync(new URL(name, folder), 'utf8').split('\n').filter(Boolean);
  const steps = lines.map((line) => JSON.parse(line));

  test(`transcript ${name}`, async () => {
    assert.ok('picture' in steps.at(-1), 'the last line is a picture');
    const conversation = new Conversation(steps.find(({ tokens }) => tokens)?.tokens);
    for (const [n, step] of steps.entries()) {
      try {
        conversation.take(step);
        await settled();
      } catch (error) {
        error.message = `${name}:${n + 1}: ${error.message}`;
        throw error;
      }
    }
    conversation.nothingUnsaid();
  });
}

/** Lets every promise that can settle, settle. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

class Conversation {
  #hub = new FakeHub();
  #client;
  #opened = 0;
  #names = new Map();
  #watchers = new Map();

  constructor(tokens) {
    const given = [...(tokens ?? [])];
    const token = async () => given.shift() ?? Promise.reject(new Error('there are no more'));
    this.#client = this.#hub.connect(tokens ? { token } : {});
  }

  take(step) {
    const [verb] = Object.keys(step);
    if (['recv', 'close', 'open', 'wait_ms', 'picture'].includes(verb)) this.nothingUnsaid();
    this[verb](step[verb]);
  }

  nothingUnsaid() {
    assert.deepEqual(this.#hub.sockets.flatMap(({ sent }) => sent), [], 'sent without a line that says so');
  }

  note() {}

  tokens() {}

  random(value) {
    this.#hub.random = value;
  }

  call({ subscribe, unsubscribe }) {
    if (unsubscribe) return this.#watchers.get(unsubscribe).subscription.close();
    const { as = 'main', ...request } = subscribe;
    const watcher = { told: [] };
    watcher.subscription = this.#client.subscribe(request, (event) => watcher.told.push(inWords(event)));
    this.#watchers.set(as, watcher);
  }

  open() {
    this.#opened++;
    assert.equal(this.#hub.sockets.length, this.#opened, 'sockets opened');
    assert.deepEqual(this.#hub.socket.protocols, ['taskhub.v1']);
  }

  recv(messages) {
    this.#hub.say(...[messages].flat().map((message) => this.#named(message)));
  }

  send(expected) {
    const sent = this.#hub.socket.sent.shift();
    assert.ok(sent, `nothing was sent, expected ${JSON.stringify(expected)}`);
    this.#learn(expected, sent);
    assert.deepEqual(sent, this.#named(expected));
  }

  close(code) {
    this.#hub.close(code);
  }

  wait_ms(ms) {
    this.#hub.timers.pass(ms);
  }

  picture({ status, behind, told, tasks, ...watchers }) {
    assert.equal(this.#hub.sockets.length, this.#opened, 'a socket was opened without a line that says so');
    if (status) assert.equal(this.#client.status, status);
    if (behind !== undefined) assert.equal(this.#client.behind, behind);
    for (const [as, picture] of Object.entries({ main: { told, tasks }, ...watchers })) {
      const watcher = this.#watchers.get(as);
      if (picture.told) assert.deepEqual(watcher.told.splice(0), picture.told);
      if (!picture.tasks) continue;
      const shown = Object.fromEntries(watcher.subscription.tasks.map((task) => [task.task_id, task]));
      assert.deepEqual(Object.keys(shown).sort(), Object.keys(picture.tasks).sort());
      for (const [task_id, fields] of Object.entries(picture.tasks)) {
        for (const [field, value] of Object.entries(fields)) assert.deepEqual(shown[task_id][field], value, `${task_id} ${field}`);
      }
    }
  }

  /** Gives each `$name` met for the first time the value found in its place. */
  #learn(expected, found) {
    if (typeof expected === 'string' && expected.startsWith('$')) {
      if (!this.#names.has(expected)) this.#names.set(expected, found);
    } else if (expected && typeof expected === 'object') {
      for (const key of Object.keys(expected)) this.#learn(expected[key], found?.[key]);
    }
  }

  #named(value) {
    if (typeof value === 'string' && value.startsWith('$')) return this.#names.get(value);
    if (Array.isArray(value)) return value.map((each) => this.#named(each));
    if (!value || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.#named(each)]));
  }
}

function inWords({ type, event, task, task_id, tasks, lines, code }) {
  if (type === 'snapshot') return `snapshot ${tasks.length}`;
  if (type === 'log') return ['log', task_id, ...lines.map(({ seq }) => seq)].join(' ');
  if (type === 'error') return `error ${code}`;
  return `${type === 'task' ? event : type} ${task_id ?? task.task_id}`;
}
