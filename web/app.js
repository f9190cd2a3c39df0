// The dashboard: one connection, its views, and the address that says which of them is shown.

import { Access, takeShare } from './access.js';
import { keepSource } from './source.js';
import { connect } from './taskhub.js';
import { auditView } from './views/audit.js';
import { connectionView } from './views/connection.js';
import { icon } from './views/dom.js';
import { listView } from './views/list.js';
import { queuesView } from './views/queues.js';
import { schedulesView } from './views/schedules.js';
import { signInView, whoView } from './views/signin.js';
import { taskView } from './views/task.js';
import { tokensView } from './views/tokens.js';
import { typesView } from './views/types.js';
import { count } from './views/words.js';
import { workersView } from './views/workers.js';

const THEME = 'taskhub.theme';
const THEMES = ['auto', 'light', 'dark'];

const byId = (id) => document.getElementById(id);
const main = byId('main');
const now = () => Date.now();
takeShare({ location, history, storage: sessionStorage }); // before anything else: the address must not keep it
const access = new Access({ storage: sessionStorage, root: document.documentElement });
const hub = connect({ token: access.token, heard: keepSource });

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

/** What the hub cannot do at the moment, as it says itself. That it lags behind is in its counts. */
async function health() {
  try {
    const answer = await fetch(new URL('readyz', hub.base));
    const { code, detail } = answer.status === 503 ? await answer.json() : {};
    return code && code !== 'overloaded' ? { code, detail } : undefined;
  } catch {
    return undefined; // the connection says so, if it is gone
  }
}

connectionView({
  hub,
  word: byId('connection'),
  banner: byId('banner'),
  announce,
  now,
  health,
});

// Who is looking. Where the hub does not know, there is nothing to look at but the form that asks.

function leave() {
  access.signOut();
  location.hash = '#/';
  location.reload();
}

whoView({ access, element: byId('who'), leave, now });

const signIn = signInView({
  access,
  /** Asks the hub who that would be, without a connection of its own. */
  async check(token) {
    const answer = await fetch(new URL('api/v1/me', hub.base), { headers: { authorization: `Bearer ${token}` } });
    if (!answer.ok) throw Object.assign(new Error(`The hub answered with ${answer.status}.`), { status: answer.status });
  },
  enter(token) {
    access.signIn(token);
    location.reload();
  },
});

/** Until it is known who is looking, or that nobody can tell. */
const known = new Promise((resolve) => {
  let asking = false;
  async function ask() {
    if (asking || access.me) return;
    asking = true;
    try {
      await access.ask(hub);
    } catch (error) {
      if (error.status === 401) askForToken();
      // A hub that is not there is asked again when it is; one that has no such question asks nobody.
    }
    asking = false;
    resolve();
  }
  hub.on('status', ({ status, close_code }) => {
    if (status === 'refused' && close_code === 4501) askForToken();
    if (status === 'live') ask();
  });
  ask();
});

function askForToken() {
  document.documentElement.dataset.stranger = '';
  signIn.show();
}

// The tab says how it goes, for those who keep it in the background: how one task does, or how many run.

let running;
let task;

function retitle() {
  const away = ['live', 'connecting'].includes(hub.status) ? '' : hub.status;
  const what = task ? task.title() : !away && running !== undefined && `${count(running)} running`;
  document.title = [away, what, 'taskhub'].filter(Boolean).join(' · ');
}

hub.on('status', retitle);
hub.stats((stats) => {
  running = stats.tasks?.running;
  byId('workers-n').textContent = stats.workers === undefined ? '' : count(stats.workers);
  retitle();
});

const list = listView({ hub, announce, now });
const workers = workersView({ hub, now });
const queues = queuesView({ hub, announce, now });
const schedules = schedulesView({ hub, announce, now });
const types = typesView({ hub, now });
const tokens = tokensView({ hub, announce, now });
const audit = auditView({ hub, now });
main.replaceChildren(signIn.element, ...[list, workers, queues, schedules, types, tokens, audit].map(({ element }) => element));

/** The views that are more than the list of tasks, by their address. */
const VIEWS = { workers, queues, schedules, types, tokens, audit };

function route() {
  if (takeShare({ location, history, storage: sessionStorage })) return location.reload();
  const [path, query = ''] = location.hash.slice(1).split('?');
  const [, view, id] = path.split('/');
  const onTask = view === 'task' && id;
  const shown = Object.hasOwn(VIEWS, view ?? '') ? VIEWS[view] : undefined;
  if (onTask || shown) list.hide();
  for (const each of Object.values(VIEWS)) if (each !== shown) each.hide();
  task = task?.close();
  if (onTask) {
    task = taskView({ hub, access, task_id: decoded(id), back: list.address(), announce, retitle, now });
    main.append(task.element);
    scrollTo(0, 0);
    task.focus();
  } else if (shown) {
    shown.show();
  } else {
    list.show(query);
  }
  retitle();
  for (const link of document.querySelectorAll('nav a')) {
    const current = link.dataset.view === (shown ? view : 'tasks');
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

// Whoever does something here wants the hub now, and not when the next attempt is due.
addEventListener('click', () => hub.reconnect());

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

addEventListener('hashchange', route);
// What is kept from the caller is not asked for; without a token nobody is kept from anything.
if (access.token) await known;
route();
