// Who is looking, in the header; and the form for who is not known.

import { h, setText } from './dom.js';
import { moment } from './words.js';

/** The caller in a few words: `ada, user`. */
export function whoWords({ user_id, role, token = '' }) {
  if (token.startsWith('scoped:')) return user_id ? `Shared by ${user_id}` : 'Shared with you';
  return user_id ? `${user_id}, ${role}` : role;
}

/** `element` is the place in the header. `leave()` forgets the token and begins anew. */
export function whoView({ access, element, leave, now }) {
  const who = h('span', { class: 'name' });
  element.replaceChildren(who, h('button', { type: 'button', class: 'quiet', onclick: leave }, 'Sign out'));

  function draw() {
    element.hidden = !access.isSignedIn;
    if (element.hidden) return;
    const { expires_at } = access.me;
    setText(who, whoWords(access.me));
    who.title = [`Token ${access.me.token}`, expires_at && `good until ${moment(expires_at, now())}`].filter(Boolean).join(', ');
  }

  access.on(draw);
  draw();
}

/** What stands in the place of everything else until somebody is known. `check(token)` asks the hub; `enter(token)` keeps it and begins anew. */
export function signInView({ access, check, enter }) {
  const input = h('input', { type: 'password', autocomplete: 'off', spellcheck: false, required: true, id: 'token', name: 'token' });
  const button = h('button', { class: 'primary' }, 'Sign in');
  const trouble = h('p', { class: 'trouble', role: 'alert' });
  const form = h('form', { onsubmit: submit }, h('label', { for: 'token' }, 'Token'), input, button);
  const element = h('section', { class: 'page sign-in', hidden: true },
    h('h1', {}, 'Sign in'),
    h('p', {}, 'This hub wants to know who you are. Ask whoever runs it for a token; ', h('code', {}, 'taskhub token create'), ' makes one.'),
    form, trouble,
    h('p', { class: 'note' }, 'It stays in this tab, and is forgotten with it.'));

  async function submit(event) {
    event.preventDefault();
    const token = input.value.trim();
    button.disabled = true;
    setText(trouble, '');
    try {
      await check(token);
      enter(token);
    } catch (error) {
      setText(trouble, error.status === 401 ? 'The hub does not know this token, or not any more.' : error.message);
      input.select();
    }
    button.disabled = false;
  }

  return {
    element,

    show() {
      if (!element.hidden) return;
      element.hidden = false;
      const had = access.isShared ? 'This link has expired, or was taken back.' : 'The hub does not know your token, or not any more.';
      setText(trouble, access.token ? had : '');
      input.focus();
    },
  };
}
