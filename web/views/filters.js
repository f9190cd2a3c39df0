// What the list is asked to show, as it stands in the address, so that a view can be kept and sent to somebody:
// `#/?status=running,failed&task_type=report.*&queue=gpu&user_id=ada&q=invoice&order=changed`.

import { ORDERS, STATUSES } from '../store.js';
import { h, icon } from './dom.js';

/** The order where the address names none. */
const ORDER = 'running';

const FIELDS = ['task_type', 'queue', 'user_id', 'q', 'order'];

/** Reads the query of an address. What it does not know it leaves out. */
export function readFilters(query) {
  const params = new URLSearchParams(query);
  const status = (params.get('status') ?? '').split(',').filter((each) => STATUSES.includes(each));
  const filters = { status };
  for (const field of FIELDS) filters[field] = params.get(field) ?? '';
  if (!Object.hasOwn(ORDERS, filters.order)) filters.order = ORDER;
  return filters;
}

/** The address of these filters. */
export function filtersAddress({ status, ...fields }) {
  const params = new URLSearchParams();
  if (status.length) params.set('status', status.join(','));
  for (const field of FIELDS) if (fields[field] && fields[field] !== ORDER) params.set(field, fields[field]);
  const query = params.toString().replaceAll('%2C', ',');
  return query ? `#/?${query}` : '#/';
}

/** The same as a subscription filter. Text is not part of it: the hub does not filter a stream by text. */
export function subscriptionFilter({ status, task_type, queue, user_id }) {
  const filter = {};
  if (status.length) filter.status = status;
  for (const [field, value] of Object.entries({ task_type, queue, user_id })) if (value) filter[field] = [value];
  return filter;
}

export const areSet = ({ status, task_type, queue, user_id, q }) => !!(status.length || task_type || queue || user_id || q);

export function filtersView({ onChange }) {
  const search = h('input', { type: 'search', placeholder: 'Title, type or id', 'aria-label': 'Text in title, type or id', oninput: changed('q'), spellcheck: false });
  const type = h('select', { 'aria-label': 'Type', onchange: changed('task_type') });
  const queue = h('select', { 'aria-label': 'Queue', onchange: changed('queue') });
  const user = h('input', { class: 'user', placeholder: 'User', 'aria-label': 'User', onchange: changed('user_id'), spellcheck: false, autocomplete: 'off' });
  const order = h('select', { 'aria-label': 'Order', onchange: changed('order') }, h('option', { value: 'running' }, 'Running first'), h('option', { value: 'created' }, 'Newest first'), h('option', { value: 'changed' }, 'Last changed first'));
  const clear = h('button', { type: 'button', class: 'quiet', onclick: () => onChange({ status: [], task_type: '', queue: '', user_id: '', q: '' }) }, 'Clear filters');
  const element = h('form', { class: 'filters', role: 'search', onsubmit: (event) => event.preventDefault() }, h('label', { class: 'search' }, icon('search'), search, h('kbd', {}, '/')), type, queue, user, order, clear);
  const known = { task_type: new Set(), queue: new Set() };
  choices(type, 'All types', known.task_type);
  choices(queue, 'All queues', known.queue);

  function changed(field) {
    return ({ target }) => onChange({ [field]: target.value.trim() });
  }

  /** Fills a list of choices, and keeps the one that was taken even when the hub has none of it at the moment. */
  function choices(select, all, names) {
    const { value } = select;
    select.replaceChildren(h('option', { value: '' }, all), ...[...names].sort().map((name) => h('option', { value: name }, name)));
    select.value = value;
  }

  function take(select, all, names, more) {
    const before = names.size;
    for (const name of more) if (name) names.add(name);
    if (names.size !== before && document.activeElement !== select) choices(select, all, names);
  }

  return {
    element,
    focus: () => search.focus(),

    show(filters) {
      take(type, 'All types', known.task_type, [filters.task_type]);
      take(queue, 'All queues', known.queue, [filters.queue]);
      if (document.activeElement !== search) search.value = filters.q;
      type.value = filters.task_type;
      queue.value = filters.queue;
      user.value = filters.user_id;
      order.value = filters.order;
      clear.hidden = !areSet(filters);
    },

    /** Offers the types and queues the hub counts. */
    offer({ types = {}, queues = {} }) {
      take(type, 'All types', known.task_type, Object.keys(types));
      take(queue, 'All queues', known.queue, Object.keys(queues));
    },
  };
}
