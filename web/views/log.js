// A task's log, followed at its end. It stays where you scrolled to, and what you selected stays selected, until you go
// back to the end.
//
// All lines that are known stand in `LogLines`; the document has a window of them, which grows towards where you scroll and
// is cut at the other end. The newest come by themselves, all that the hub keeps are fetched once somebody goes there,
// searches, or saves the log.

import { pieces, plain } from '../ansi.js';
import { h, setText } from './dom.js';
import { LogLines } from './log_lines.js';
import { complaint, count, time } from './words.js';

/** Lines in the document. */
const WINDOW_MAX = 1_500;

/** Lines that join it at once when you scroll. */
const STEP = 500;

/** So near to an end of the window, it is time for more lines. */
const NEAR_PX = 600;

/** As many as the hub keeps of one task. */
const KEPT_MAX = 10_000;

/** A pause in typing that means "search for it". */
const TYPING_MS = 200;

const LEVELS = new Set(['trace', 'debug', 'info', 'warn', 'error']);

export function logView({ hub, task_id }) {
  const log = new LogLines();
  const list = h('ol', { class: 'lines', tabIndex: 0, 'aria-label': 'Log lines', onscroll: scrolled });
  const note = h('span', { class: 'note' }, 'nothing yet');
  const search = h('input', { type: 'search', placeholder: 'Search the log', 'aria-label': 'Search the log', spellcheck: false, oninput: typed });
  const save = (label, title, text) => h('button', { type: 'button', class: 'quiet', title, onclick: () => download(text) }, label);
  const tools = h('div', { class: 'tools', hidden: true }, search,
    save('Save', 'Save all lines as text', ({ message }) => plain(message)),
    save('with colours', 'Save all lines as text, with the escape sequences for a terminal: less -R shows them', ({ message }) => message));
  const older = h('button', { type: 'button', class: 'quiet older', hidden: true, onclick: fetchAll }, 'Show older lines');
  const newest = h('button', { type: 'button', class: 'news', hidden: true, onclick: toEnd }, 'Go to the newest');
  const element = h('section', { class: 'panel log' }, h('header', {}, h('h2', {}, 'Log'), note, tools), older, list, newest);
  new ResizeObserver(() => follows && (list.scrollTop = list.scrollHeight)).observe(list); // it came into view, or the window changed
  const asked_for = new Set(); // gaps
  let needle = '';
  let shown = []; // the lines that could be in the document: all, or those that were searched for
  let from = 0; // those in it: shown[from..to]
  let to = 0;
  let follows = true;
  let is_complete = false; // all that the hub keeps were fetched
  let fetching; // a promise while they are
  let failed = '';
  let changed; // since the last frame: 'appended' at the end, or anything
  let known_holes_n = 0;
  let cut = 0; // lines that left at the front since the last frame
  let typing;

  function add(lines) {
    const { added, appended } = log.add(lines);
    if (!added) return;
    if (!changed) requestAnimationFrame(draw);
    changed = appended && changed !== 'anywhere' ? 'appended' : 'anywhere';
    cut += log.trim();
    fillGaps();
  }

  function draw() {
    const anywhere = changed === 'anywhere' || cut > (needle ? 0 : from);
    const was_at_end = to === shown.length;
    [from, to] = [from - cut, to - cut];
    changed = undefined;
    cut = 0;
    if (anywhere) return rebuild();
    shown = log.where(test());
    if (was_at_end && to < shown.length) {
      if (follows && !isSelecting()) {
        grow(Math.max(from, shown.length - WINDOW_MAX), shown.length);
        list.scrollTop = list.scrollHeight;
      } else {
        grow(from, Math.min(shown.length, Math.max(to, from + WINDOW_MAX)));
        newest.hidden = false;
      }
    }
    drawAround();
  }

  /** What you selected would be gone with its line. */
  function isSelecting() {
    const selection = getSelection();
    return !!selection && !selection.isCollapsed && list.contains(selection.anchorNode);
  }

  function test() {
    return needle ? ({ message }) => plain(message).toLowerCase().includes(needle) : undefined;
  }

  /** Has the lines `shown[first..end]` in the document, and touches none that stays. What is in sight stays where it is. */
  function grow(first, end) {
    if (end > to) list.append(...rows(Math.max(to, first), end));
    if (first < from) {
      const before_px = list.scrollHeight;
      const { scrollTop } = list;
      list.prepend(...rows(first, from));
      list.scrollTop = scrollTop + list.scrollHeight - before_px;
    } else if (first > from) {
      const before_px = list.scrollHeight;
      const { scrollTop } = list;
      for (let n = from; n < first; n++) list.firstChild.remove();
      list.scrollTop = scrollTop - (before_px - list.scrollHeight);
    }
    for (let n = end; n < to; n++) list.lastChild.remove();
    [from, to] = [first, end];
  }

  /** Puts all lines in anew, around the one that was in sight at the top. */
  function rebuild() {
    const top_px = list.getBoundingClientRect().top;
    const anchor = follows ? undefined : [...list.children].find((row) => row.getBoundingClientRect().bottom > top_px);
    const offset_px = anchor && anchor.getBoundingClientRect().top - top_px;
    const seq = Number(anchor?.dataset.seq);
    shown = log.where(test());
    const at = anchor ? Math.max(0, shown.findIndex((line) => line.seq >= seq)) : shown.length;
    to = Math.min(shown.length, at + Math.floor(WINDOW_MAX / 2));
    from = Math.max(0, to - WINDOW_MAX);
    list.replaceChildren(...rows(from, to));
    const again = anchor && list.children[at - from];
    list.scrollTop = again ? list.scrollTop + again.getBoundingClientRect().top - top_px - offset_px : list.scrollHeight;
    drawAround();
  }

  function drawAround() {
    const lines = (n) => `${count(n)} ${n === 1 ? 'line' : 'lines'}`;
    const { first, last, size } = log;
    const lacks_older = first?.seq > 1;
    const said = needle
      ? `${count(shown.length)} of ${lines(size)}`
      : !size ? 'nothing yet' : lacks_older && !is_complete ? `the newest ${lines(size)} of ${count(last.seq)}` : lacks_older ? `${lines(size)}; the ${count(first.seq - 1)} before are not kept` : lines(size);
    setText(note, failed || said);
    tools.hidden = !size;
    older.hidden = !lacks_older || is_complete || from > 0;
  }

  function scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = list;
    follows = to === shown.length && scrollTop + clientHeight >= scrollHeight - 24;
    if (follows) newest.hidden = true;
    else if (to < shown.length) newest.hidden = false;
    if (scrollTop < NEAR_PX && from > 0) {
      const first = Math.max(0, from - STEP);
      grow(first, Math.min(to, first + WINDOW_MAX));
      drawAround();
    } else if (scrollTop < NEAR_PX && !older.hidden && !follows && !failed) {
      fetchAll();
    } else if (scrollTop + clientHeight > scrollHeight - NEAR_PX && to < shown.length) {
      const end = Math.min(shown.length, to + STEP);
      grow(Math.max(from, end - WINDOW_MAX), end);
    }
  }

  function toEnd() {
    follows = true;
    newest.hidden = true;
    rebuild();
    list.focus({ preventScroll: true });
  }

  function typed() {
    clearTimeout(typing);
    typing = setTimeout(async () => {
      const next = search.value.trim().toLowerCase();
      if (next === needle) return;
      if (next) await fetchAll();
      needle = next;
      follows = true;
      newest.hidden = true;
      rebuild();
    }, TYPING_MS);
  }

  /** Brings what the hub keeps beyond what came by itself. */
  function fetchAll() {
    if (is_complete || !log.size || log.first.seq === 1) return Promise.resolve();
    fetching ??= hub.logs(task_id, { tail: KEPT_MAX })
      .then((lines) => {
        is_complete = true;
        failed = '';
        log.add(lines);
      })
      .catch((error) => (failed = `Older lines could not be fetched: ${complaint(error)}`))
      .finally(() => {
        fetching = undefined;
        rebuild();
      });
    return fetching;
  }

  /** After a cut the hub tells its newest lines; those between can be asked for, unless they are not kept. */
  function fillGaps() {
    const holes_n = log.last.seq - log.first.seq + 1 - log.size;
    if (holes_n === known_holes_n) return;
    known_holes_n = holes_n;
    for (const { after, n } of log.gaps()) {
      if (asked_for.has(after)) continue;
      asked_for.add(after);
      hub.logs(task_id, { after, limit: Math.min(n, KEPT_MAX) }).then(add, () => asked_for.delete(after));
    }
  }

  async function download(textOf) {
    await fetchAll();
    const text = log.where().map((line) => `${line.at} ${(line.level ?? '').padEnd(5)} ${textOf(line)}\n`).join('');
    const href = URL.createObjectURL(new Blob([text], { type: 'text/plain;charset=utf-8' }));
    h('a', { href, download: `${task_id}.log` }).click();
    URL.revokeObjectURL(href);
  }

  const rows = (first, end) => Array.from({ length: end - first }, (_, n) => row(shown[first + n], shown[first + n - 1]));

  function row({ seq, at, level, attempt, message }, before) {
    const known = LEVELS.has(level) ? level : 'info';
    const missing = before && !needle ? seq - before.seq - 1 : 0;
    const row = h('li', { class: known },
      missing > 0 && h('p', { class: 'break' }, `${count(missing)} ${missing === 1 ? 'line is' : 'lines are'} not shown`),
      attempt !== before?.attempt && (before || attempt > 1) && h('p', { class: 'break' }, `attempt ${attempt}`),
      h('time', { dateTime: at, title: at }, time(at)), h('b', {}, level ?? ''),
      h('span', {}, pieces(message).map(({ text, classes }) => (classes ? h('span', { class: classes }, marked(text)) : marked(text))).flat()));
    row.dataset.seq = seq;
    return row;
  }

  /** What was searched for stands out. */
  function marked(text) {
    if (!needle) return [text];
    const out = [];
    const low = text.toLowerCase();
    let at = 0;
    for (let next = low.indexOf(needle); next >= 0 && low.length === text.length; next = low.indexOf(needle, at)) {
      out.push(text.slice(at, next), h('mark', {}, text.slice(next, next + needle.length)));
      at = next + needle.length;
    }
    return [...out, text.slice(at)].filter(Boolean);
  }

  return { element, add };
}
