// A link that shows one task to whoever has it, for a while, and nothing else.

import { LIFETIMES, shareLink } from '../access.js';
import { copyButton, h, setText } from './dom.js';
import { complaint, moment } from './words.js';

/** The token of a link: it reads this task, but for the parts that are kept back. */
export function shareBody(task_id, ttl_ms, shown) {
  const hide = ['payload', 'result', 'logs'].filter((part) => !shown.includes(part));
  return { allow: ['read'], filter: { task_id: [task_id] }, hide: hide.length ? hide : undefined, ttl_ms };
}

const PARTS = [['payload', 'Payload'], ['result', 'Result'], ['logs', 'Log']];

/** The button, and what it opens. */
export function shareView({ hub, task_id, now }) {
  const lifetime = h('select', { id: 'share-life' }, LIFETIMES.map(({ words, ms }) => h('option', { value: ms }, words)));
  const boxes = PARTS.map(([part, words]) => ({ part, box: h('input', { type: 'checkbox', checked: true }), words }));
  const make = h('button', { class: 'primary' }, 'Make a link');
  const trouble = h('p', { class: 'trouble', role: 'alert' });
  const made = h('div', { class: 'secret', hidden: true });
  const dialog = h('dialog', { class: 'share', 'aria-label': 'Share this task' },
    h('h2', {}, 'Share this task'),
    h('p', {}, 'Whoever has the link sees this task as it goes on, and nothing else; they need no account.'),
    h('form', { onsubmit: submit },
      h('label', {}, h('span', {}, 'Good for'), lifetime),
      h('fieldset', {}, h('legend', {}, 'With'), boxes.map(({ box, words }) => h('label', {}, box, words))),
      make),
    trouble, made,
    h('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Close'));
  dialog.addEventListener('close', forget);
  const button = h('button', { type: 'button', class: 'signed-in', 'data-needs': 'mint', onclick: () => dialog.showModal() }, 'Share');

  async function submit(event) {
    event.preventDefault();
    make.disabled = true;
    setText(trouble, '');
    forget();
    try {
      const shown = boxes.filter(({ box }) => box.checked).map(({ part }) => part);
      const { token, expires_at } = await hub.mint(shareBody(task_id, Number(lifetime.value), shown));
      const link = shareLink(location.href.split('#')[0], token, task_id);
      const field = h('input', { readOnly: true, value: link, 'aria-label': 'Link', onfocus: () => field.select() });
      made.replaceChildren(h('div', { class: 'text' }, field, copyButton(() => link)), h('p', { class: 'note' }, `It is good until ${moment(expires_at, now())}.`));
      made.hidden = false;
      field.focus();
    } catch (error) {
      setText(trouble, complaint(error));
    }
    make.disabled = false;
  }

  function forget() {
    made.replaceChildren();
    made.hidden = true;
  }

  return { button, dialog };
}
