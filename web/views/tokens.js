// The API tokens, for admins: who is let in, made and revoked. A token's text is shown once, when it is made, and is nowhere
// afterwards: the hub keeps only its digest.

import { askedView } from './asked.js';
import { copyButton, h, setText } from './dom.js';
import { keyed } from './pairs.js';
import { complaint, count, moment } from './words.js';

const REFRESH_MS = 5_000;

/** A second click within this time revokes. */
const SURE_MS = 4_000;

const DAY_MS = 86_400_000;

const EMPTY = { name: undefined };

/** What each role may, in one line. */
export const ROLES = {
  user: 'sees and steers their own tasks',
  viewer: 'sees everything, changes nothing',
  worker: 'runs tasks',
  operator: 'sees and steers everything',
  admin: 'everything, and says who else may what',
};

const LIVES = [[30, '30 days'], [90, '90 days'], [365, 'a year'], [undefined, 'for good']];

/** The body of the call that makes what a form says. */
export function newToken({ name, role, user_id, task_types, queues, days }, now_ms) {
  const list = (text) => text.split(',').map((word) => word.trim()).filter(Boolean);
  const some = (text) => (role === 'worker' && list(text ?? '').length ? list(text) : undefined);
  return {
    name: name.trim() || undefined,
    role,
    user_id: role === 'worker' ? undefined : user_id.trim() || undefined,
    task_types: some(task_types),
    queues: some(queues),
    expires_at: days ? new Date(now_ms + days * DAY_MS).toISOString() : undefined,
  };
}

/** What a token lets in, in words. */
export function tokenWords({ role, user_id, task_types, queues }) {
  const takes = role === 'worker' && [task_types ? task_types.join(', ') : 'all types', queues ? `from ${queues.join(', ')}` : 'from all queues'].join(' ');
  return [role, user_id && `as ${user_id}`, takes].filter(Boolean).join(', ');
}

export function tokensView({ hub, announce, now }) {
  const list = h('ul', { class: 'workers tokens' });
  const setRows = keyed(list, ({ name }) => name, (token) => (token === EMPTY ? noToken() : tokenRow({ hub, announce, refresh: () => view.refresh(), now })));

  async function ask() {
    const tokens = await hub.apiTokens();
    setRows(tokens.length ? tokens : [EMPTY]);
    return tokens.length ? `${count(tokens.length)} ${tokens.length === 1 ? 'token' : 'tokens'}` : '';
  }

  const view = askedView({ hub, now, name: 'Tokens', list, refresh_ms: REFRESH_MS, ask });
  const making = makeView({ hub, announce, now, made: () => view.refresh() });
  list.before(making.element);
  return {
    ...view,
    hide() {
      making.forget();
      view.hide();
    },
  };
}

function makeView({ hub, announce, now, made }) {
  const labelled = (words, control, more = {}) => h('label', more, h('span', {}, words), control);
  const name = h('input', { placeholder: 'made up if empty', autocomplete: 'off', maxLength: 128 });
  const role = h('select', { onchange: draw }, Object.entries(ROLES).map(([value, words]) => h('option', { value }, `${value}: ${words}`)));
  const user_id = h('input', { placeholder: 'ada', autocomplete: 'off', maxLength: 128 });
  const task_types = h('input', { placeholder: 'all', autocomplete: 'off' });
  const queues = h('input', { placeholder: 'all', autocomplete: 'off' });
  const days = h('select', {}, LIVES.map(([value, words]) => h('option', { value: value ?? '' }, words)));
  days.value = '90';
  const button = h('button', { class: 'primary' }, 'Make a token');
  const trouble = h('p', { class: 'trouble', role: 'alert' });
  const user = labelled('User', user_id);
  const types = labelled('Types', task_types);
  const from = labelled('Queues', queues);
  const form = h('form', { class: 'making', onsubmit: submit }, labelled('Name', name), labelled('Role', role), user, types, from, labelled('Good for', days), button);
  const secret = h('div', { class: 'secret', hidden: true });
  const element = h('div', { class: 'panel maker' }, form, trouble, secret);

  function draw() {
    user.hidden = role.value === 'worker';
    types.hidden = from.hidden = role.value !== 'worker';
    user_id.required = role.value === 'user';
  }

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    setText(trouble, '');
    try {
      const body = newToken({ name: name.value, role: role.value, user_id: user_id.value, task_types: task_types.value, queues: queues.value, days: Number(days.value) }, now());
      show(await hub.createApiToken(body));
      form.reset();
      days.value = '90';
      draw();
      made();
    } catch (error) {
      setText(trouble, complaint(error));
    }
    button.disabled = false;
  }

  function show({ name: called, token }) {
    const text = h('code', { class: 'mono' }, token);
    secret.replaceChildren(
      h('p', {}, h('strong', {}, `The token ${called}`), ' is shown this once. Keep it where it is to be used.'),
      h('div', { class: 'text' }, text, copyButton(() => token), h('button', { type: 'button', class: 'quiet', onclick: forget }, 'Done')));
    secret.hidden = false;
    announce(`The token ${called} is made`);
  }

  function forget() {
    secret.replaceChildren();
    secret.hidden = true;
  }

  draw();
  return { element, forget };
}

function tokenRow({ hub, announce, refresh, now }) {
  const name = h('strong');
  const may = h('span');
  const when = h('div', { class: 'rules' });
  const revoke = h('button', { type: 'button', onclick: ask }, 'Revoke');
  const trouble = h('p', { class: 'trouble', role: 'alert' });
  const element = h('li', {}, h('div', { class: 'who' }, name, may), when, h('div', { class: 'doing' }, revoke, trouble));
  let token;

  async function ask() {
    if (!revoke.dataset.sure) {
      revoke.dataset.sure = 'yes';
      setText(revoke, 'Really revoke?');
      return setTimeout(unsure, SURE_MS);
    }
    unsure();
    revoke.disabled = true;
    setText(trouble, '');
    try {
      await hub.revokeApiToken(token.name);
      announce(`${token.name} is revoked`);
    } catch (error) {
      setText(trouble, complaint(error));
    }
    revoke.disabled = false;
    refresh();
  }

  function unsure() {
    delete revoke.dataset.sure;
    setText(revoke, 'Revoke');
  }

  return {
    element,
    update(next) {
      token = next;
      setText(name, token.name);
      name.title = token.name;
      setText(may, tokenWords(token));
      const over = token.expires_at && Date.parse(token.expires_at) <= now();
      setText(when, [`made ${moment(token.created_at, now())}`, token.expires_at ? `${over ? 'expired' : 'good until'} ${moment(token.expires_at, now())}` : 'good until it is revoked'].join(', '));
      revoke.setAttribute('aria-label', `Revoke ${token.name}`);
    },
  };
}

function noToken() {
  const element = h('li', { class: 'empty' },
    h('h2', {}, 'No API token is there'),
    h('p', {}, 'Those who come with tokens of an application are not listed here. Make one above, or where the hub runs:'),
    h('pre', { tabIndex: 0 }, 'taskhub token create --role user --user ada --expires 90d --name ada'));
  return { element, update() {} };
}
