// The live list. Messages only mark what changed; once a frame the rows in sight are brought up to date, and only a
// transition can move one. While the pointer moves over the list, or the keyboard goes through it, rows change but do
// not move, so that what you are about to click stays where it is.
//
// Only the rows in sight, and some around them, are in the document; the list is as tall as if all were. A thousand
// changes a second then cost what those few rows cost, and not what a thousand rows do.

import { STATUSES, Tasks, select } from '../store.js';
import { atNextFrame, copyButton, h } from './dom.js';
import { NONE, areSet, filtersAddress, filtersView, readFilters, subscriptionFilter } from './filters.js';
import { overviewView } from './overview.js';
import { Row } from './row.js';
import { complaint, count, shownWords, time } from './words.js';

/** Tasks in the list until older ones are asked for: the most the hub gives in one snapshot. */
const SNAPSHOT_MAX = 1_000;

/** Records the page holds: the snapshot, and what comes while it is open all day. */
const TASKS_MAX = 3_000;

/** Older ones that somebody may ask for beyond that. */
const OLDER_MAX = 20_000;

/** Rows in the document above and below those in sight, so that scrolling and the tab key find them there. */
const AROUND = 15;

/** Rows are moved at most once in this time: calmer to read, and sorting a thousand of them is not free. */
const PLACE_MS = 200;

/** More transitions than these between two such moments are too many to follow with the eye: then rows stand still for longer. */
const CALM = 20;
const PLACE_BUSY_MS = 1_000;

/** Tasks asked for at once beyond the snapshot, and when searching. */
const PAGE = 500;

/** Progress reports a second and task: what an eye can follow in a list, at a cost a page can have all day. */
const PROGRESS_HZ = 4;

/** The pointer, or a key, holds the order for this long after its last move. */
const HOLD_MS = 2_500;

/** A pause in typing that means "search for it". */
const TYPING_MS = 250;

export function listView({ hub, announce, now }) {
  const tasks = new Tasks();
  const rows = new Map(); // task_id → Row, of those in the document
  let row_px; // the height of a row with its line, which style.css decides
  let order = []; // the tasks of all rows, in their order
  let more = false; // beyond those rows the hub has others that match
  const changed = new Set(); // task_ids
  let filters = readFilters('');
  let subscription;
  let running; // a second one: in a long line the running tasks are older than any snapshot reaches
  let subscribed_for; // the filter of the subscription, as text
  let answered = false; // by the hub, of these filters; until then the list shows what is known of them here
  let refused; // why the hub does not want to
  let failed = ''; // why more could not be had
  let truncated = false; // the hub has more that match
  let edge = -Infinity; // all that match and were created then or later are here; beyond are the older ones, and some of them
  let cursor; // where older ones go on, in the list of those
  let cursor_before; // created before this
  let searched_all = false; // all that have the text were found
  let older_n = 0; // of those that were asked for
  let lists_n = 0; // how often the list of older ones began anew: an answer to what was asked before is of no use
  let live_at; // when the page was last known to be right
  let ready = false; // there was a picture once
  let reorder = false;
  let shown = false;
  let scroll_y = 0;
  let held_until = 0;
  let placed_at = 0;
  let later; // the timer for rows that wait to be moved
  let stats;
  let typing;
  let waiting_n = 0;
  let transitions_n = 0; // since rows were moved
  let fetching = false;
  let blank_for; // why there is no row, as it is said

  const createdAt = ({ created_at }) => Date.parse(created_at);

  const overview = overviewView({ onToggle: toggle });
  const bar = filtersView({ onChange: change });
  const list = h('ol', { class: 'rows', onpointermove: hold, onpointerleave: release, onkeydown: hold, onfocusin: hold });
  const news = h('button', { type: 'button', class: 'news', hidden: true, onclick: release });
  const hint = h('p', { class: 'hint', hidden: true });
  const foot = h('p', { class: 'foot' });
  const older = h('button', { type: 'button', hidden: true, onclick: loadOlder }, 'Show older');
  const blank = h('div', { class: 'blank' });
  const head = h('div', { class: 'row head', 'aria-hidden': 'true' }, ['Status', 'Task', 'Type', 'Progress', 'Queue', 'User', 'Age'].map((name) => h('span', {}, name)));
  const element = h('section', { class: 'page list', hidden: true }, h('h1', { class: 'unseen' }, 'Tasks'), overview.element, bar.element, hint, h('div', { class: 'table' }, head, news, list, blank), h('div', { class: 'after' }, foot, older));

  const draw = atNextFrame(() => {
    if (!shown || !ready) return;
    const at = now();
    const free_at = Math.max(held_until, placed_at + (transitions_n > CALM ? PLACE_BUSY_MS : PLACE_MS));
    if (reorder && at >= free_at) place(at);
    else for (const task_id of changed) if (tasks.get(task_id)) rows.get(task_id)?.update(tasks.get(task_id), at);
    changed.clear();
    if (!reorder) return;
    if (at < held_until) drawNews();
    clearTimeout(later);
    later = setTimeout(draw, free_at - at);
  });

  function place(at) {
    reorder = false;
    // Where everything changes, saying of each that it just has says nothing.
    list.classList.toggle('busy', transitions_n * PLACE_MS > CALM * Math.max(PLACE_MS, at - placed_at));
    placed_at = at;
    waiting_n = transitions_n = 0;
    const focused = list.contains(document.activeElement) && document.activeElement;
    order = refused ? [] : select(tasks.values(), { filter: subscriptionFilter(filters), text: filters.q, order: filters.order }).tasks;
    more = answered && truncated && !(filters.q && searched_all);
    reveal(at);
    if (focused?.isConnected && document.activeElement !== focused) refocus(focused);
    news.hidden = true;
    drawAround();
  }

  /** A row that is moved loses the focus. It gets it back, and holds the others no longer than it would have. */
  function refocus(row) {
    const until = held_until;
    row.focus({ preventScroll: true });
    held_until = until;
  }

  /** Has the rows around what is in sight in the document, and no others. */
  function reveal(at) {
    row_px ??= parseFloat(getComputedStyle(list).getPropertyValue('--row')) + 1;
    const above_px = -list.getBoundingClientRect().top; // the one thing read from the layout, before anything is written
    const first = Math.max(0, Math.min(Math.floor(above_px / row_px), order.length - 1) - AROUND);
    const end = Math.min(order.length, Math.max(0, Math.ceil((above_px + innerHeight) / row_px)) + AROUND);
    const near = order.slice(first, end);
    const wanted = new Set(near.map(({ task_id }) => task_id));
    for (const [task_id, row] of rows) {
      if (wanted.has(task_id)) continue;
      row.element.remove();
      rows.delete(task_id);
    }
    let next = list.firstChild;
    near.forEach(({ task_id }, n) => {
      let row = rows.get(task_id);
      const task = tasks.get(task_id);
      if (row) task && row.update(task, at);
      else rows.set(task_id, (row = new Row(task ?? near[n], at)));
      row.place(first + n + 1, order.length);
      if (row.element === next) next = next.nextSibling;
      else list.insertBefore(row.element, next);
    });
    list.style.paddingBlock = `${first * row_px}px ${(order.length - first - near.length) * row_px}px`;
  }

  const scrolled = atNextFrame(() => shown && ready && reveal(now()));
  addEventListener('scroll', scrolled, { passive: true });
  addEventListener('resize', () => {
    row_px = undefined;
    scrolled();
  });

  function drawAround() {
    const n = order.length;
    const is_live = hub.status === 'live';
    const why = n ? none : refused ? refusal : !answered ? (is_live || !ready ? notYet : notKnown) : areSet(filters) ? nothingFound : nothingYet;
    if (why !== blank_for) blank.replaceChildren(...why());
    blank_for = why;
    head.hidden = !n;
    const is_full = older_n >= OLDER_MAX;
    foot.textContent = failed || shownWords({ n, more, is_full, total: total(), searched: !!filters.q, answered, live_at: is_live ? undefined : live_at && time(live_at) });
    older.hidden = !more || is_full;
    older.disabled = !is_live || fetching;
  }

  /** How many match in all, where the hub counts them: of statuses, and not of types, queues, users or texts. */
  function total() {
    const { status, task_type, queue, user_id, q } = filters;
    if (task_type || queue || user_id || q || !stats?.tasks) return undefined;
    return (status.length ? status : STATUSES).reduce((sum, each) => sum + (stats.tasks[each] ?? 0), 0);
  }

  function drawNews() {
    news.hidden = waiting_n === 0;
    news.textContent = `${count(waiting_n)} new`;
  }

  const empty = (heading, words, ...more) => [h('div', { class: 'empty' }, h('h2', {}, heading), h('p', {}, words), ...more)];
  const clearButton = () => h('button', { type: 'button', onclick: () => change(NONE) }, 'Clear filters');

  const none = () => [];
  const refusal = () => empty('The hub refused to show this', complaint(refused), clearButton());
  const notYet = () => empty('Waiting for the hub', 'Tasks appear here as soon as it answers.');
  const notKnown = () => empty('Not live', 'Of the tasks this page knew when the hub was lost none matches. Others may; they appear here as soon as it answers.', clearButton());
  const nothingFound = () => empty('No task matches', 'Nothing is there now. What comes to match will appear here.', clearButton());

  function nothingYet() {
    const token = hub.hasToken ? ' -H "authorization: Bearer $TASKHUB_TOKEN"' : '';
    const command = `curl ${new URL('api/v1/tasks', location.href)}${token} -H 'content-type: application/json' \\\n  -d '{"task_type":"hello","title":"My first task","payload":{"name":"world"}}'`;
    return empty('No tasks yet', 'Submit the first one, and watch it appear here:',
      h('div', { class: 'command' }, h('pre', { tabIndex: 0 }, command), copyButton(() => command)),
      h('p', {}, 'It then waits for a worker. ', h('a', { href: '#/workers' }, 'How to start one')));
  }

  function told(event) {
    const { type } = event;
    if (type !== 'progress') transitions_n++;
    if (type === 'snapshot') {
      tasks.clear();
      for (const task of [...event.tasks, ...(running?.tasks ?? [])]) tasks.apply(task);
      truncated = event.truncated;
      edge = truncated ? Math.min(...event.tasks.map(createdAt)) : -Infinity;
      cursor = undefined;
      lists_n++;
      older_n = 0;
      hub.tasks_max = TASKS_MAX;
      answered = ready = reorder = true;
      held_until = placed_at = 0;
      if (filters.q && truncated) search();
      setTimeout(() => shown && announce(`${count(tasks.size)} tasks`), 500);
    } else if (type === 'error') {
      refused = event;
      ready = reorder = true;
    } else if (type === 'gone' || type === 'leave') {
      tasks.forget(event.task_id ?? event.task.task_id);
      if (type === 'leave' && !event.event) makeRoom(event.task);
      reorder = true;
    } else {
      const { task } = event;
      const known = tasks.get(task.task_id);
      tasks.apply(task);
      changed.add(task.task_id);
      if (type === 'task') reorder = true;
      if (!known) waiting_n++;
    }
    draw();
  }

  /** A task had to leave for newer ones: the hub has more than is here, from that one on. */
  function makeRoom(task) {
    truncated = true;
    if (createdAt(task) < edge) return;
    edge = createdAt(task);
    cursor = undefined;
    lists_n++;
  }

  /** Of the running tasks only what the other subscription does not tell: those beyond its snapshot. */
  function toldOfRunning({ type, task, task_id, event, tasks: more = [] }) {
    if (type === 'gone' || (type === 'leave' && !event)) reorder = tasks.forget(task_id ?? task.task_id) || reorder;
    if (type === 'progress') more = [task];
    for (const each of more) if (tasks.apply(each)) changed.add(each.task_id);
    if (type === 'snapshot') reorder = true;
    draw();
  }

  function subscribe() {
    const filter = subscriptionFilter(filters);
    const wanted = JSON.stringify(filter);
    if (wanted === subscribed_for) return;
    subscribed_for = wanted;
    subscription?.close();
    running = running?.close();
    answered = truncated = false;
    refused = undefined;
    failed = '';
    subscription = hub.subscribe({ filter, snapshot: { limit: SNAPSHOT_MAX, order: 'desc' }, max_hz: PROGRESS_HZ }, told);
    const among_others = !filter.status || (filter.status.length > 1 && filter.status.includes('running'));
    if (among_others) running = hub.subscribe({ filter: { ...filter, status: ['running'] }, snapshot: { limit: SNAPSHOT_MAX }, max_hz: PROGRESS_HZ }, toldOfRunning);
  }

  function change(some) {
    const next = { ...filters, ...some };
    // Typing replaces the address, a choice is a step back to which the browser can return.
    if (Object.keys(some).length === 1 && 'q' in some) {
      history.replaceState(null, '', filtersAddress(next));
      apply(next);
      clearTimeout(typing);
      typing = setTimeout(search, TYPING_MS);
    } else {
      location.hash = filtersAddress(next);
    }
  }

  function toggle(status) {
    const { status: set } = filters;
    change({ status: set.includes(status) ? set.filter((each) => each !== status) : [...set, status] });
  }

  function apply(next) {
    if (next.q !== filters.q) {
      cursor = undefined; // it is one of another list
      searched_all = false;
    }
    filters = next;
    bar.show(filters);
    overview.press(filters.status);
    subscribe();
    reorder = true;
    held_until = placed_at = 0;
    draw();
  }

  const asQuery = () => {
    const { status, task_type, queue, user_id, q } = filters;
    return { status: status.length ? status : undefined, task_type: task_type || undefined, queue: queue || undefined, user_id: user_id || undefined, q: q || undefined };
  };

  /** Asks for more than the snapshot had: what is found joins the list, and is kept up to date with it. */
  async function fetchMore(query) {
    const asked_for = filtersAddress(filters);
    const list_n = lists_n;
    const isWanted = () => asked_for === filtersAddress(filters) && list_n === lists_n;
    fetching = true;
    failed = '';
    try {
      const page = await hub.list({ ...asQuery(), limit: PAGE, ...query });
      if (!isWanted()) return;
      older_n += page.tasks.length;
      hub.tasks_max = TASKS_MAX + older_n;
      subscription.include(page.tasks);
      for (const task of page.tasks) tasks.apply(task);
      return page;
    } catch (error) {
      if (isWanted()) failed = `Older tasks could not be asked for: ${complaint(error)}`;
    } finally {
      fetching = false;
      reorder = true;
      draw();
    }
  }

  async function search() {
    if (!truncated || !filters.q) return;
    const page = await fetchMore({});
    searched_all = !!page && !page.next_cursor;
  }

  /**
   * Those before the edge, page by page. A cursor is one of its list, so all its pages are asked for with the same moment. That
   * includes those created at the edge itself, of which a part is here: pages that bring nothing new are passed over.
   */
  async function loadOlder() {
    if (fetching) return;
    for (let n = 0; n <= SNAPSHOT_MAX / PAGE; n++) {
      if (!cursor) cursor_before = new Date(edge + 1).toISOString();
      const known_n = tasks.size;
      const page = await fetchMore({ created_before: cursor_before, cursor });
      if (!page) return;
      cursor = page.next_cursor;
      if (filters.q) searched_all = !cursor;
      else if (cursor) edge = Math.min(edge, createdAt(page.tasks.at(-1)));
      else [truncated, edge] = [false, -Infinity];
      if (!cursor || tasks.size > known_n) return;
    }
  }

  /** For a mouse that moves, and for who goes through the rows with the keyboard; a finger scrolls. */
  function hold({ pointerType = 'mouse' }) {
    if (pointerType !== 'mouse' || filters.q) return;
    held_until = now() + HOLD_MS;
  }

  function release() {
    held_until = 0;
    draw();
  }

  hub.stats((next) => {
    stats = next;
    if (!shown) return;
    overview.update(stats);
    bar.offer(stats, [...tasks.values()]);
    if (ready) drawAround();
    const stuck = stats.workers === 0 && stats.tasks?.pending > 0;
    hint.hidden = !stuck;
    if (stuck && !hint.firstChild) hint.append('Tasks are ready and no worker is connected. ', h('a', { href: '#/workers' }, 'How to start one'));
  });

  hub.on('status', ({ status }) => {
    if (status === 'live') live_at = undefined;
    else live_at ??= now();
    failed = '';
    if (shown) drawAround();
  });

  setInterval(() => {
    if (!shown || document.hidden) return;
    const at = now();
    for (const row of rows.values()) row.tick(at);
  }, 1_000);

  return {
    element,
    focusSearch: bar.focus,

    /** Where it was hidden, it is scrolled to as it was then. */
    show(query) {
      const returns = !shown;
      shown = true;
      element.hidden = false;
      if (stats) overview.update(stats);
      apply(readFilters(query));
      if (returns) requestAnimationFrame(() => scrollTo(0, scroll_y)); // rows follow it
    },

    hide() {
      if (shown) scroll_y = scrollY;
      shown = false;
      element.hidden = true;
    },

    /** The address of the list as it was last looked at. */
    address: () => filtersAddress(filters),
  };
}
