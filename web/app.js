// The dashboard: one connection, three views, and the address that says which of them is shown.

import { connect } from './taskhub.js';
import { connectionView } from './views/connection.js';
import { icon } from './views/dom.js';
import { listView } from './views/list.js';
import { taskView } from './views/task.js';
import { count } from './views/words.js';
import { workersView } from './views/workers.js';

const TOKEN = 'taskhub.token';
const THEME = 'taskhub.theme';
const THEMES = ['auto', 'light', 'dark'];

/** Records the page holds: its thousand rows, as many older ones as somebody scrolls through, and what ended meanwhile. */
const TASKS_MAX = 3_000;

const byId = (id) => document.getElementById(id);
const main = byId('main');
const now = () => Date.now();
const hub = connect({ token: sessionStorage.getItem(TOKEN) ?? undefined, tasks_max: TASKS_MAX });

/** Says something to those who hear the page instead of seeing it. */
function announce(words) {
  byId('announcer').textContent = words;
}

// The theme: what the system says, unless told otherwise.

function setTheme(theme) {
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = byId('theme');
  button.title = `Theme: ${theme}`;
  button.setAttribute('aria-label', button.title);
}

let theme = THEMES.includes(localStorage.getItem(THEME)) ? localStorage.getItem(THEME) : 'auto';
setTheme(theme);
byId('theme').append(icon('theme'));
byId('theme').addEventListener('click', () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  localStorage.setItem(THEME, theme);
  setTheme(theme);
  announce(`Theme: ${theme}`);
});

connectionView({
  hub,
  word: byId('connection'),
  banner: byId('banner'),
  announce,
  now,
  signIn(token) {
    sessionStorage.setItem(TOKEN, token);
    location.reload();
  },
});

const list = listView({ hub, announce, now });
const workers = workersView({ hub, now });
let task;
main.replaceChildren(list.element, workers.element);

function route() {
  const [path, query = ''] = location.hash.slice(1).split('?');
  const [, view, id] = path.split('/');
  const onTask = view === 'task' && id;
  if (onTask || view === 'workers') list.hide();
  workers.hide();
  task = task?.close();
  if (onTask) {
    task = taskView({ hub, task_id: decoded(id), back: list.address(), announce, now });
    main.append(task.element);
    scrollTo(0, 0);
    task.focus();
  } else if (view === 'workers') {
    workers.show();
  } else {
    list.show(query);
  }
  for (const link of document.querySelectorAll('nav a')) {
    const current = link.dataset.view === (view === 'workers' ? 'workers' : 'tasks');
    if (current) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

/** An address that was cut or mistyped is looked up as it is, and not found. */
function decoded(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

addEventListener('hashchange', route);
route();

// The tab says how it goes, for those who keep it in the background.

let running;
const retitle = () => {
  const state = hub.status === 'live' || hub.status === 'connecting' ? running && `${count(running)} running` : hub.status;
  document.title = [state, 'taskhub'].filter(Boolean).join(' · ');
};
hub.on('status', retitle);
hub.stats((stats) => {
  running = stats.tasks?.running;
  byId('workers-n').textContent = stats.workers === undefined ? '' : count(stats.workers);
  retitle();
});

addEventListener('keydown', (event) => {
  const typing = event.target.matches?.('input, select, textarea');
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey && !list.element.hidden) {
    event.preventDefault();
    list.focusSearch();
  } else if (event.key === 'Escape' && typing) {
    event.target.blur();
  } else if (event.key === 'Escape' && task) {
    location.hash = list.address();
  }
});
