// The declared task types: what their tasks have unless they say otherwise, and whether their payloads are looked at. Asked for
// while it is looked at, every three seconds and when something is set; and not at all while the page is hidden or the hub is
// away. Then it says from when it is.

import { askedView } from './asked.js';
import { h, setText, ticketed } from './dom.js';
import { keyed } from './pairs.js';
import { count } from './words.js';

const REFRESH_MS = 3_000;

const EMPTY = { name: undefined };

export function typesView({ hub, now }) {
  const list = h('ul', { class: 'workers queues types' });
  const setRows = keyed(list, ({ name }) => name, (type) => (type === EMPTY ? noType() : typeRow(hub)));

  async function ask() {
    const { task_types, next_cursor } = await hub.taskTypes();
    setRows(task_types.length ? task_types : [EMPTY]);
    return summaryOf(task_types, !!next_cursor);
  }

  const view = askedView({ hub, now, name: 'Types', list, refresh_ms: REFRESH_MS, ask, listen: () => hub.settings(() => view.refresh()) });
  return view;
}

/** How many there are. */
export function summaryOf(types, more = false) {
  if (!types.length) return '';
  if (more) return `The first ${count(types.length)} declared types, by name`;
  return `${count(types.length)} declared ${types.length === 1 ? 'type' : 'types'}`;
}

/** What its tasks have unless they say otherwise. */
export function defaultWords({ defaults = {} }) {
  const words = Object.entries(defaults).map(([field, value]) => `${field} ${typeof value === 'string' ? value : JSON.stringify(value)}`);
  return words.join(', ') || 'no defaults';
}

function typeRow(hub) {
  const name = h('strong');
  const title = h('span');
  const description = h('div', { class: 'rules' });
  const defaults = h('div', { class: 'rules' });
  const schema = h('a', { target: '_blank', onclick: ticketed(hub) }, 'Payloads must fit a schema');
  const element = h('li', {}, h('div', { class: 'who' }, name, title), description, defaults, h('div', {}, schema));
  return {
    element,
    update(type) {
      setText(name, type.name);
      name.title = type.name;
      setText(title, type.title ?? '');
      setText(description, type.description ?? '');
      setText(defaults, defaultWords(type));
      schema.hidden = type.payload_schema === undefined;
      schema.href = `api/v1/task-types/${encodeURIComponent(type.name)}`;
    },
  };
}

function noType() {
  const element = h('li', { class: 'empty' },
    h('h2', {}, 'No task type is declared'),
    h('p', {}, 'Types need no declaration. One that has it has defaults, and a schema that payloads must fit:'),
    h('pre', { tabIndex: 0 }, "taskhub type set report --defaults '{\"queue\":\"slow\"}' --schema @report.schema.json"));
  return { element, update() {} };
}
