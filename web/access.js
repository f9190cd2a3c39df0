// Who looks at this page: the token in this tab, what the hub says of it, and what it may. A hub that asks nobody who they are
// has none of this.
//
// The token is in the tab's session storage and nowhere else: it ends with the tab, and no other site and no other tab has it.
// A share link has it in the part of the address that no browser sends to anyone (`#/share/TOKEN/task/ID`); it is taken out
// at once, before anything is drawn, so that it is not in the history, in a screenshot or in what is copied from there.

const KEY = 'taskhub.token';

/** Share links carry these; anything else in their place is no token. */
const TOKEN = /^[A-Za-z0-9._~+/=-]{1,8192}$/;

/** The token and the address that a share link means; nothing for any other address. */
export function readShare(hash) {
  const [, token, rest] = /^#\/share\/([^/?]+)(\/.*)?$/.exec(hash) ?? [];
  return token && TOKEN.test(token) ? { token, hash: `#${rest ?? '/'}` } : undefined;
}

/** The link that shows a task to whoever has it. */
export function shareLink(page, token, task_id) {
  const url = new URL(page);
  url.hash = `#/share/${token}/task/${encodeURIComponent(task_id)}`;
  return url.href;
}

/** Takes a token out of the address, if there is one. Answers whether there was. */
export function takeShare({ location, history, storage }) {
  const share = readShare(location.hash);
  if (!share) return false;
  history.replaceState(null, '', share.hash);
  storage.setItem(KEY, share.token);
  return true;
}

/** How long a token is good, in words of the form that asks for it. */
export const LIFETIMES = [
  { words: '1 hour', ms: 3_600_000 },
  { words: '8 hours', ms: 28_800_000 },
  { words: '1 day', ms: 86_400_000 },
];

export class Access {
  /** What the hub says of the caller, once it has. */
  me;
  #storage;
  #root;
  #listeners = new Set();

  /** `root` is the document's element: what stands in its `data-may` is shown, by style.css. */
  constructor({ storage, root }) {
    this.#storage = storage;
    this.#root = root;
    // Until the hub has said what one may, nothing is offered.
    if (this.token) this.#root.dataset.may = '';
  }

  get token() {
    return this.#storage.getItem(KEY) ?? undefined;
  }

  /** Whether the token is one that somebody shared. */
  get isShared() {
    return !!this.token?.startsWith('ths_');
  }

  /** Whether the hub asks who is calling, and knows it of this page. */
  get isSignedIn() {
    return !!this.token && !!this.me && this.me.token !== 'none';
  }

  /** Asks the hub who is calling. One that does not know the question asks nobody. */
  async ask(hub) {
    const me = await hub.me();
    this.me = me;
    if (this.isSignedIn) {
      this.#root.dataset.may = me.rights.join(' ');
      this.#root.dataset.signedIn = '';
    } else {
      delete this.#root.dataset.may;
      delete this.#root.dataset.signedIn;
    }
    for (const fn of this.#listeners) fn();
    return me;
  }

  /** Calls `fn` when the hub has said who is calling. */
  on(fn) {
    this.#listeners.add(fn);
  }

  /** Whether the caller has a right. Where nobody is asked who they are, everybody has all. */
  may(right) {
    return !this.isSignedIn || this.me.rights.includes(right);
  }

  /** Whether a part of tasks is kept from the caller. */
  hides(part) {
    return !!this.me?.hidden?.includes(part);
  }

  signIn(token) {
    this.#storage.setItem(KEY, token);
  }

  signOut() {
    this.#storage.removeItem(KEY);
  }
}
