// Who looks at the page, links that share a task, and the token of the client where no socket is in play.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Access, readShare, shareLink, takeShare } from '../../web/access.js';
import { Token, renewIn } from '../../web/token.js';
import { rowWords } from '../../web/views/audit.js';
import { shareBody } from '../../web/views/share.js';
import { whoWords } from '../../web/views/signin.js';
import { newToken, tokenWords } from '../../web/views/tokens.js';
import { FakeHub } from './fake_hub.mjs';

const ID = '0198f3a2-5c1e-7a3b-9c4d-1f2e3a4b5c6d';

class Storage extends Map {
  getItem = (key) => this.get(key) ?? null;
  setItem = (key, value) => void this.set(key, value);
  removeItem = (key) => void this.delete(key);
}

test('a share link has its token in the part of the address that is sent to nobody, and it is taken out at once', () => {
  const link = new URL(shareLink('https://hub.example/tasks/?x=1', 'ths_a.b.c', ID));
  assert.equal(`${link.origin}${link.pathname}${link.search}`, 'https://hub.example/tasks/?x=1');
  const storage = new Storage();
  const replaced = [];
  const history = { replaceState: (...args) => replaced.push(args) };
  assert.equal(takeShare({ location: { hash: link.hash }, history, storage }), true);
  assert.deepEqual(replaced, [[null, '', `#/task/${ID}`]]);
  assert.equal(storage.getItem('taskhub.token'), 'ths_a.b.c');
  for (const hash of ['', '#/', `#/task/${ID}`, '#/share/', '#/share/two%20words/task/x', '#/share/<b>/', '#/shared/t/task/x']) {
    assert.equal(readShare(hash), undefined, hash);
  }
  assert.deepEqual(readShare('#/share/t'), { token: 't', hash: '#/' });
});

test('what one may is what the hub says; where it asks nobody, nothing is hidden', async () => {
  const storage = new Storage();
  const open = { dataset: {} };
  const stranger = new Access({ storage, root: open });
  await stranger.ask({ me: async () => ({ role: 'admin', rights: ['see', 'administer'], token: 'none' }) });
  assert.deepEqual([open.dataset, stranger.isSignedIn, stranger.may('cancel')], [{}, false, true]);

  const closed = { dataset: {} };
  const access = new Access({ storage, root: closed });
  access.signIn('tht_a');
  const known = new Access({ storage, root: closed });
  assert.deepEqual(closed.dataset, { may: '' }, 'nothing is offered before it is known');
  await known.ask({ me: async () => ({ role: 'user', user_id: 'ada', rights: ['see', 'cancel'], hidden: ['payload'], token: 'api:ada' }) });
  assert.deepEqual(closed.dataset, { may: 'see cancel', signedIn: '' });
  assert.deepEqual([known.may('cancel'), known.may('retry'), known.hides('payload'), known.hides('logs')], [true, false, true, false]);
  known.signOut();
  assert.equal(known.token, undefined);
});

test('a caller, a token, a row of the audit and a link are said and asked for in few words', () => {
  assert.equal(whoWords({ role: 'operator', token: 'api:ci' }), 'operator');
  assert.equal(whoWords({ role: 'user', user_id: 'ada', token: 'jwt:https://login' }), 'ada, user');
  assert.equal(whoWords({ role: 'user', user_id: 'ada', token: 'scoped:x' }), 'Shared by ada');
  assert.equal(tokenWords({ role: 'user', user_id: 'ada' }), 'user, as ada');
  assert.equal(tokenWords({ role: 'worker', task_types: ['a', 'b.*'] }), 'worker, a, b.* from all queues');
  const form = { name: ' ', role: 'worker', user_id: 'ada', task_types: 'a, b.*,', queues: '', days: 1 };
  const expires_at = '1970-01-02T00:00:00.000Z';
  assert.deepEqual(newToken(form, 0), { name: undefined, role: 'worker', user_id: undefined, task_types: ['a', 'b.*'], queues: undefined, expires_at });
  assert.equal(newToken({ ...form, role: 'user', days: 0 }, 0).user_id, 'ada');
  assert.equal(newToken({ ...form, days: 0 }, 0).expires_at, undefined);
  const row = { seq: 1, who: 'ada', role: 'user', token: 'api:ada', action: 'queue.set', target: 'mail', outcome: 'forbidden' };
  assert.deepEqual(rowWords(row), ['ada, user', 'api:ada', 'queue set', 'mail', 'forbidden', '']);
  assert.deepEqual(shareBody(ID, 5, ['logs']), { allow: ['read'], filter: { task_id: [ID] }, hide: ['payload', 'result'], ttl_ms: 5 });
  assert.equal(shareBody(ID, 5, ['payload', 'result', 'logs']).hide, undefined);
});

test('a token is renewed before it expires, by its claims or by what came with it', () => {
  const jwt = (claims) => `ths_e30.${btoa(JSON.stringify(claims)).replaceAll('=', '')}.c2ln`;
  const check = (text, expires_at, expected) => assert.equal(renewIn(text, expires_at, 1_000_000), expected, text);
  check(jwt({ exp: 1_100 }), undefined, 80_000);
  check(jwt({ exp: 4_600 }), undefined, 3_540_000);
  check(jwt({ exp: 1_001 }), undefined, 1_000);
  check(jwt({ exp: 2_900, iat: 2_800 }), undefined, 80_000); // by a clock that is half an hour behind
  check(jwt({ exp: 1_000 }), undefined, undefined);
  check(jwt({ sub: 'ada' }), undefined, undefined);
  check('tht_opaque', '1970-01-01T00:18:20.000Z', 80_000);
  check('tht_opaque', undefined, undefined);
  check('a.%.b', undefined, undefined);
});

test('a token that says when it expires is kept for calls, shared by those who ask at once, and used on where the next fails', async () => {
  let now = 0;
  let n = 0;
  const give = async () => {
    if (++n === 2) throw new Error('login is down');
    return { token: `t${n}`, expires_at: new Date(now + 100_000).toISOString() };
  };
  const token = new Token(give, () => now);
  const texts = (await Promise.all([token.get(), token.get()])).map(({ text }) => text);
  assert.deepEqual([texts, n], [['t1', 't1'], 1]);
  now = 79_999;
  assert.deepEqual(await token.get(), { text: 't1', renew_in_ms: 1 });
  now = 80_000;
  assert.equal((await token.get()).text, 't1', 'it is in force yet');
  assert.equal(n, 2);
  now = 85_000;
  assert.equal((await token.get()).text, 't3');
  assert.equal((await token.insteadOf('t1')).text, 't3', 'somebody else has heard of it already');
  assert.equal((await token.insteadOf('t3')).text, 't4');
  assert.equal(await new Token('fixed').insteadOf('fixed'), undefined);
});

test('a call that was refused for its token is made again once, with another', async () => {
  const said = [];
  const fetch = async (url, { headers }) => {
    said.push(headers.authorization);
    const good = headers.authorization === 'Bearer t2';
    return new Response(JSON.stringify(good ? { role: 'user' } : { code: 'unauthenticated' }), { status: good ? 200 : 401 });
  };
  let n = 0;
  const client = new FakeHub().connect({ fetch, token: () => `t${++n}` });
  assert.equal((await client.me()).role, 'user');
  assert.deepEqual(said.splice(0), ['Bearer t1', 'Bearer t2']);
  await assert.rejects(client.me(), { status: 401 });
  assert.deepEqual(said.splice(0), ['Bearer t3', 'Bearer t4']);
  const fixed = new FakeHub().connect({ fetch, token: 'wrong' });
  await assert.rejects(fixed.me(), { status: 401 });
  assert.equal(said.length, 1, 'there is no other');
  const none = new FakeHub().connect({ fetch, token: () => Promise.reject(new Error('login is down')) });
  await assert.rejects(none.me(), { code: 'no_token' });
});

test('a download and an event stream go with a ticket, a new one for each connection', async () => {
  const fake = new FakeHub();
  let n = 0;
  const fetch = async (url, { method }) => {
    assert.deepEqual([method, url.pathname], ['POST', '/api/v1/tickets']);
    return new Response(JSON.stringify({ ticket: `thk_${++n}` }));
  };
  const sources = [];
  class EventSource {
    listeners = {};
    constructor(url) {
      Object.assign(this, { url, closed: false });
      sources.push(this);
    }
    addEventListener(type, fn) {
      this.listeners[type] = fn;
    }
    close() {
      this.closed = true;
    }
  }
  const client = fake.connect({ fetch, EventSource, token: 'tht_a' });
  assert.equal(await client.resultLink(ID), `http://hub.test/api/v1/tasks/${ID}/result?ticket=thk_1`);
  const told = [];
  const end = client.events({ task_type: 'report' }, ({ type }) => told.push(type));
  await settled();
  assert.equal(sources[0].url, 'http://hub.test/api/v1/events?task_type=report&ticket=thk_2');
  sources[0].listeners.mark({ data: '{"type":"mark","rev":1}' });
  sources[0].onerror();
  fake.timers.pass(500);
  await settled();
  assert.ok(sources[0].closed, 'it would come back with a ticket that is spent');
  assert.match(sources[1].url, /thk_3$/);
  end();
  assert.ok(sources[1].closed);
  assert.deepEqual(told, ['mark']);
  assert.equal(await fake.connect({ fetch }).resultLink(ID), `http://hub.test/api/v1/tasks/${ID}/result`);
});

/** Lets every promise that can settle, settle. */
const settled = () => new Promise((resolve) => setImmediate(resolve));
