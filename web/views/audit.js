// Who did what to what, when and from where, for admins: the newest first.

import { askedView } from './asked.js';
import { h } from './dom.js';
import { keyed } from './pairs.js';
import { count, moment } from './words.js';

const REFRESH_MS = 5_000;

/** Rows shown at first, and the most that the hub gives in one answer. */
const [ROWS, ROWS_MAX] = [100, 500];

const HEAD = ['When', 'Who', 'Token', 'Did', 'To', 'Outcome', 'From'];

export function auditView({ hub, now }) {
  const body = h('tbody');
  const setRows = keyed(body, ({ seq }) => seq, (row) => rowView(row, now));
  const none = h('p', { class: 'note' });
  const more = h('button', { type: 'button', hidden: true, onclick: showMore }, 'Show older');
  const table = h('div', { class: 'table audit', tabIndex: 0, role: 'group', 'aria-label': 'Audit' },
    h('table', {}, h('thead', {}, h('tr', {}, HEAD.map((name) => h('th', { scope: 'col' }, name)))), body));
  const list = h('div', {}, table, h('div', { class: 'after' }, none, more));
  let limit = ROWS;

  async function ask() {
    const { rows, next_cursor } = await hub.audit({ limit });
    setRows(rows);
    more.hidden = !next_cursor || limit >= ROWS_MAX;
    none.textContent = rows.length ? '' : 'Nothing has been done yet.';
    return rows.length ? `The newest ${count(rows.length)} of what was done` : '';
  }

  function showMore() {
    limit = ROWS_MAX;
    view.refresh();
  }

  const view = askedView({ hub, now, name: 'Audit', list, refresh_ms: REFRESH_MS, ask });
  return view;
}

/** A row as it is shown, without the link. */
export function rowWords({ who, role, token, action, target, outcome, address }) {
  return [who ? `${who}, ${role}` : role, token, action.replaceAll('_', ' ').replaceAll('.', ' '), target ?? '', outcome, address ?? ''];
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** A row never changes. */
function rowView(row, now) {
  const [who, token, did, target, outcome, address] = rowWords(row);
  const what = UUID.test(target) ? h('a', { href: `#/task/${target}`, class: 'mono', title: target }, `…${target.slice(-12)}`) : target;
  const element = h('tr', { class: outcome === 'ok' ? '' : 'refused' },
    h('td', {}, h('time', { dateTime: row.at, title: row.at }, moment(row.at, now()))),
    [who, token, did, what, outcome, address].map((each) => h('td', {}, each)));
  return { element, update() {} };
}
