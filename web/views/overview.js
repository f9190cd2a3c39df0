// The band above the list: how many tasks there are of each status (each count is also a filter), and what flows through.

import { STATUSES } from '../store.js';
import { h, icon, setText, sparkline } from './dom.js';
import { count, rate } from './words.js';

/** Samples a line shows; about one a second. */
const SAMPLES_MAX = 90;

/** Rates shown, so that a hub that counts more does not fill the page. */
const RATES_MAX = 4;

export function overviewView({ onToggle }) {
  const chips = Object.fromEntries(STATUSES.map((status) => [status, chip(status)]));
  const rates = h('dl', { class: 'rates' });
  const shown = new Map(); // name → {value, line, samples}
  const buttons = h('div', { class: 'chips', role: 'group', 'aria-label': 'Filter by status' }, Object.values(chips).map((each) => each.button));

  function chip(status) {
    const n = h('span', { class: 'n' }, '–');
    const button = h('button', { type: 'button', class: `chip ${status}`, 'aria-pressed': 'false', onclick: () => onToggle(status) },
      icon(status), h('span', {}, status), n);
    return { button, n };
  }

  function newRate(name) {
    const value = h('b');
    const line = h('span', { class: 'line' });
    rates.append(h('div', {}, h('dt', {}, name.replace(/_per_s(ec(ond)?)?$/, '').replaceAll('_', ' ')), h('dd', {}, line, value, '/s')));
    const each = { value, line, samples: [] };
    shown.set(name, each);
    return each;
  }

  return {
    element: h('div', { class: 'overview' }, buttons, rates),

    /** Which statuses are filtered for. */
    press(statuses) {
      for (const status of STATUSES) chips[status].button.setAttribute('aria-pressed', String(statuses.includes(status)));
    },

    /** The hub's newest counts and rates. */
    update(stats) {
      for (const status of STATUSES) {
        const n = stats.tasks?.[status] ?? 0;
        setText(chips[status].n, count(n));
        chips[status].button.classList.toggle('none', n === 0);
      }
      for (const [name, value] of Object.entries(stats.rates ?? {})) {
        if (typeof value !== 'number' || (!shown.has(name) && shown.size >= RATES_MAX)) continue;
        const each = shown.get(name) ?? newRate(name);
        each.samples.push(value);
        if (each.samples.length > SAMPLES_MAX) each.samples.shift();
        setText(each.value, rate(value));
        each.line.replaceChildren(sparkline(each.samples));
      }
    },
  };
}
