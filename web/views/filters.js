// What the list is asked to show, as it stands in the address, so that a view can be kept and sent to somebody:
// `#/?status=running,failed&task_type=report.*&queue=gpu&user_id=ada&q=invoice&order=changed`.

import { ORDERS, STATUSES } from '../store.js';
import { choiceView } from './choice.js';
import { h, icon } from './dom.js';

/** The order where the address names none. */
const ORDER = 'running';

/** What to change to have no filter. */
export const NONE = { status: [], task_type: '', queue: '', user_id: '', q: '' };

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

/** Queues that `taskhub run` makes for one command alone. Nobody looks for them once it is over. */
const OF_ONE_RUN = /^run\./;

/** The names to offer for a field: those the hub counts unfinished tasks of, and those of the tasks that are known here. */
export function namesOf(field, counted = {}, tasks = []) {
  const names = new Set(Object.keys(counted));
  for (const task of tasks) {
    const name = task[field];
    if (name && !(field === 'queue' && OF_ONE_RUN.test(name))) names.add(name);
  }
  return names;
}

export function filtersView({ onChange }) {
  const changed = (field) => ({ target }) => onChange({ [field]: target.value.trim() });
  const search = h('input', { type: 'search', placeholder: 'Title, type or id', 'aria-label': 'Text in title, type or id', oninput: changed('q'), spellcheck: false });
  const type = choiceView({ label: 'Type', all: 'All types', onChange: (task_type) => onChange({ task_type }) });
  const queue = choiceView({ label: 'Queue', all: 'All queues', onChange: (queue) => onChange({ queue }) });
  const user = h('input', { class: 'user', placeholder: 'User', 'aria-label': 'User', onchange: changed('user_id'), spellcheck: false, autocomplete: 'off' });
  const order = h('select', { 'aria-label': 'Order', onchange: changed('order') }, h('option', { value: 'running' }, 'Running first'), h('option', { value: 'created' }, 'Newest first'), h('option', { value: 'changed' }, 'Last changed first'));
  const clear = h('button', { type: 'button', class: 'quiet', onclick: () => onChange(NONE) }, 'Clear filters');
  const element = h('form', { class: 'filters', role: 'search', 'aria-label': 'Tasks', onsubmit: (event) => event.preventDefault() }, h('label', { class: 'search' }, icon('search'), search, h('kbd', {}, '/')), type.elements, queue.elements, user, order, clear);
  let filters = readFilters('');

  return {
    element,
    focus: () => search.focus(),

    show(next) {
      filters = next;
      if (document.activeElement !== search) search.value = filters.q;
      type.show(filters.task_type);
      queue.show(filters.queue);
      user.value = filters.user_id;
      order.value = filters.order;
      clear.hidden = !areSet(filters);
    },

    /** Offers the types and queues there are. Where one is chosen only its tasks are known, and what was offered stays. */
    offer({ types, queues }, tasks) {
      if (!filters.task_type) type.offer(namesOf('task_type', types, tasks));
      if (!filters.queue) queue.offer(namesOf('queue', queues, tasks));
    },
  };
}
