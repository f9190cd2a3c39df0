// The log lines a page knows of one task: in order, each once, with a bound. Pure.

/** Lines kept; the hub keeps 10,000. Of a log that goes on, the oldest leave. */
export const LINES_MAX = 20_000;

/** So many leave at once: each time moves all the others. */
const LEAVE = 1_000;

export class LogLines {
  #lines = []; // by seq, ascending

  get size() {
    return this.#lines.length;
  }

  get first() {
    return this.#lines[0];
  }

  get last() {
    return this.#lines.at(-1);
  }

  at(n) {
    return this.#lines[n];
  }

  /** Takes lines in any order. Returns how many of them are new, and whether all of these stand behind what was there. */
  add(more) {
    const before = this.last?.seq ?? -1;
    const fresh = more.filter(({ seq }) => seq > before);
    const others = more.length - fresh.length ? more.filter(({ seq }) => seq < before) : [];
    for (const line of fresh.sort(bySeq)) if (line.seq !== this.last?.seq) this.#lines.push(line);
    const appended = others.length === 0;
    let added = fresh.length;
    if (!appended) {
      const all = new Map([...others, ...this.#lines].map((line) => [line.seq, line]));
      added += all.size - this.#lines.length;
      if (all.size !== this.#lines.length) this.#lines = [...all.values()].sort(bySeq);
    }
    return { added, appended };
  }

  /** Lets the oldest go that are too many. Returns how many. */
  trim() {
    if (this.#lines.length <= LINES_MAX) return 0;
    const over = this.#lines.length - LINES_MAX + LEAVE;
    this.#lines = this.#lines.slice(over);
    return over;
  }

  /** Where lines are missing between two that are known: `[{after, n}]`. */
  gaps() {
    const found = [];
    for (let n = 1; n < this.#lines.length; n++) {
      const missing = this.#lines[n].seq - this.#lines[n - 1].seq - 1;
      if (missing > 0) found.push({ after: this.#lines[n - 1].seq, n: missing });
    }
    return found;
  }

  /** All of them as of now, or those that a test holds for. */
  where(test) {
    return test ? this.#lines.filter(test) : this.#lines.slice();
  }
}

const bySeq = (a, b) => a.seq - b.seq;
