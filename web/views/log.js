// A task's log, followed at its end. It stays where you scrolled to until you go back to the end.

import { h } from './dom.js';
import { count, time } from './words.js';

/** Lines on the page; older ones leave it. The hub keeps up to 10,000. */
const LINES_MAX = 2_000;

const LEVELS = new Set(['trace', 'debug', 'info', 'warn', 'error']);

export function logView({ task_id }) {
  const lines = h('ol', { class: 'lines', tabIndex: 0, 'aria-label': 'Log lines', onscroll: scrolled });
  const note = h('span', { class: 'note' }, 'nothing yet');
  const newest = h('button', { type: 'button', class: 'news', hidden: true, onclick: toEnd }, 'Go to the newest');
  const raw = h('a', { href: `api/v1/tasks/${encodeURIComponent(task_id)}/logs?tail=1000`, target: '_blank', rel: 'noopener' }, 'as JSON');
  const element = h('section', { class: 'panel log' }, h('header', {}, h('h2', {}, 'Log'), note, raw), lines, newest);
  let follows = true;
  let last;
  let dropped = 0;
  let waiting = [];
  let asked = false;

  function scrolled() {
    follows = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 24;
    if (follows) newest.hidden = true;
  }

  function toEnd() {
    follows = true;
    newest.hidden = true;
    lines.scrollTop = lines.scrollHeight;
  }

  function draw() {
    asked = false;
    if (waiting.length > LINES_MAX) {
      dropped += waiting.length - LINES_MAX;
      waiting = waiting.slice(-LINES_MAX);
      lines.replaceChildren();
    }
    const made = waiting.flatMap((line) => {
      const before = last;
      last = line;
      const missing = before ? line.seq - before.seq - 1 : 0;
      return [
        missing > 0 && h('li', { class: 'break' }, `${count(missing)} ${missing === 1 ? 'line is' : 'lines are'} not shown`),
        line.attempt !== before?.attempt && (before || line.attempt > 1) && h('li', { class: 'break' }, `attempt ${line.attempt}`),
        row(line),
      ].filter(Boolean);
    });
    waiting = [];
    lines.append(...made);
    while (lines.childElementCount > LINES_MAX) {
      lines.firstChild.remove();
      dropped++;
    }
    const n = lines.querySelectorAll('li:not(.break)').length;
    const counted = `${count(n)} ${n === 1 ? 'line' : 'lines'}`;
    note.textContent = dropped || last.seq > n ? `the newest ${counted}` : counted;
    if (follows) lines.scrollTop = lines.scrollHeight;
    else newest.hidden = false;
  }

  function row({ at, level, message }) {
    const known = LEVELS.has(level) ? level : 'info';
    return h('li', { class: known }, h('time', { dateTime: at, title: at }, time(at)), h('b', {}, level ?? ''), h('span', {}, message));
  }

  return {
    element,

    add(more) {
      waiting.push(...more);
      if (asked) return;
      asked = true;
      requestAnimationFrame(draw);
    },
  };
}
