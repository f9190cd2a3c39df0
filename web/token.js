// The token that says who calls: a text, or a function that gives one.
//
// What a function gave is kept, for calls and for the socket, until shortly before it expires; when that is stands in the answer
// itself (`expires_at`, as in that of `POST /tokens`) or in its claims (`exp`), which are read here and not checked: that is
// for the hub. A function that says nothing of it is asked each time. Those who ask at once share one call.

/** A token is renewed when a fifth of its life is left, or this much. */
const RENEW_BEFORE_MAX_MS = 60_000;

/** Two of a function's tokens are this far apart, however short they live. */
const FETCH_GAP_MS = 1_000;

/** A function that failed while a token is in force is called again after this. */
const FETCH_AGAIN_MS = 5_000;

export class Token {
  #source;
  #now;
  #held;
  #coming;

  /** `source`: a text, a function that gives a text or `{token, expires_at}` or a promise of one, or nothing. */
  constructor(source, now = () => Date.now()) {
    this.#source = source;
    this.#now = now;
  }

  /** Whether there is any. */
  get isUsed() {
    return !!this.#source;
  }

  /** Whether another may be had in place of one that the hub refused. */
  get hasOthers() {
    return typeof this.#source === 'function';
  }

  /** One to call with: `{text, renew_in_ms?}`. Where the next cannot be had, the one before is given until the hub refuses it. */
  async get() {
    if (!this.hasOthers) return { text: this.#source };
    if (this.#held && this.#now() < this.#held.renew_at) return this.#given();
    try {
      return await this.#fetch();
    } catch (error) {
      if (!this.#held?.renew_at) throw error;
      this.#held.renew_at = this.#now() + FETCH_AGAIN_MS;
      return this.#given();
    }
  }

  /** Another than this text, which the hub does not take or is about to; nothing where there is no other. */
  async insteadOf(text) {
    if (!this.hasOthers) return undefined;
    if (this.#held?.renew_at && this.#held.text !== text) return this.#given(); // somebody else has heard of it already
    return this.#fetch();
  }

  #fetch() {
    this.#coming ??= (async () => {
      try {
        const given = await this.#source();
        const { token: text, expires_at } = typeof given === 'object' && given ? given : { token: given };
        const after_ms = text && renewIn(text, expires_at, this.#now());
        this.#held = { text, renew_at: after_ms && this.#now() + after_ms };
        return this.#given();
      } finally {
        this.#coming = undefined;
      }
    })();
    return this.#coming;
  }

  #given() {
    const { text, renew_at } = this.#held;
    return { text, renew_in_ms: renew_at && Math.max(0, renew_at - this.#now()) };
  }
}

/**
 * When a token that was just given is to be renewed, in milliseconds. Nothing: it does not say, or by this machine's clock it has
 * expired, which is for the hub to say.
 */
export function renewIn(text, expires_at, now_ms) {
  const { exp, iat } = claims(text);
  const end_ms = Date.parse(expires_at) || exp * 1_000;
  // A clock that is behind the issuer's must not make its life longer.
  const life_ms = Math.min(end_ms - now_ms, typeof iat === 'number' ? end_ms - iat * 1_000 : Infinity);
  if (!(life_ms > 0) || !Number.isFinite(end_ms)) return undefined;
  return Math.max(FETCH_GAP_MS, Math.round(life_ms - Math.min(life_ms / 5, RENEW_BEFORE_MAX_MS)));
}

/** What a signed token says of itself. */
function claims(text) {
  try {
    return JSON.parse(atob(text.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'))) ?? {};
  } catch {
    return {};
  }
}
