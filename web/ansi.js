// What a terminal would show of a line: its text, in pieces, each with how it looks. Pure.
//
// Of the escape sequences only colours and weights (SGR) are kept, as class names; style.css decides how they look on a
// light page and on a dark one. The 256 colours and the 16 million are each shown as the nearest of the sixteen that have
// a name, because those can be read on either ground. Everything else that moves, clears, rings or links is dropped.
// A carriage return begins the line anew, a backspace takes a character back. Each line begins without colour: which lines
// stood before it is not known where a log was cut, or where two streams were mixed.

const NAMES = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white'];

/** Escape sequences: CSI; OSC and other strings up to their end; charsets and other two- and three-byte ones; a lone ESC. */
const ESCAPE = /(?:\x1b\[|\x9b)([0-?]*)[ -/]*([@-~])|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]|[\x1b\x9b]/g;

/** What a terminal would not show as it stands; tabs it does. */
const CONTROL = /[\0-\x08\x0a-\x1f\x7f-\x9f]/;

/** The pieces of a line: `[{text, classes}]`, `classes` like `'red bold'`. */
export function pieces(line) {
  if (!CONTROL.test(line)) return line ? [{ text: line, classes: '' }] : [];
  const visible = line.replace(/\r+$/, '');
  const row = new ScreenRow();
  const look = {};
  let from = 0;
  for (const { 0: sequence, 1: parameters, 2: final, index } of visible.matchAll(ESCAPE)) {
    row.write(visible.slice(from, index), classesOf(look));
    if (final === 'm' && /^[\d;:]*$/.test(parameters)) apply(look, parameters);
    if (final === 'K') row.erase(parameters);
    from = index + sequence.length;
  }
  row.write(visible.slice(from), classesOf(look));
  return row.pieces();
}

/** The text alone. */
export const plain = (line) => (CONTROL.test(line) ? pieces(line).map(({ text }) => text).join('') : line);

/** One row of a screen: what is written goes over what stands there, and what is longer stays. */
class ScreenRow {
  #cells = [];
  #at = 0;

  write(text, classes) {
    for (const char of text) {
      if (char === '\r') this.#at = 0;
      else if (char === '\b') this.#at = Math.max(0, this.#at - 1);
      else if (!CONTROL.test(char)) {
        while (this.#cells.length < this.#at) this.#cells.push({ char: ' ', classes: '' });
        this.#cells[this.#at++] = { char, classes };
      }
    }
  }

  /** To the end of the line, or (1) from its beginning, or (2) all of it. */
  erase(what) {
    if (what === '1') this.#cells.fill({ char: ' ', classes: '' }, 0, this.#at + 1);
    else this.#cells.length = Math.min(this.#cells.length, what === '2' ? 0 : this.#at);
  }

  pieces() {
    const out = [];
    for (const { char, classes } of this.#cells) {
      if (out.at(-1)?.classes === classes) out.at(-1).text += char;
      else out.push({ text: char, classes });
    }
    return out;
  }
}

function classesOf({ bold, dim, italic, underline, strike, inverse, fg, bg }) {
  const [front, back] = inverse ? [bg, fg ?? 'default'] : [fg, bg];
  const flags = { bold, dim, italic, underline, strike };
  return [front, back && `on-${back}`, ...Object.keys(flags).filter((name) => flags[name])].filter(Boolean).join(' ');
}

/** Select Graphic Rendition: each parameter changes how what follows looks. */
function apply(look, parameters) {
  const all = parameters.split(';');
  for (let n = 0; n < all.length; n++) {
    const [code, ...sub] = all[n].split(':').map((part) => (part === '' ? undefined : Number(part)));
    if (code === undefined || code === 0) for (const key of Object.keys(look)) delete look[key];
    else if (code === 1) look.bold = true;
    else if (code === 2) look.dim = true;
    else if (code === 3) look.italic = true;
    else if (code === 4 || code === 21) look.underline = sub[0] !== 0;
    else if (code === 7) look.inverse = true;
    else if (code === 9) look.strike = true;
    else if (code === 22) look.bold = look.dim = false;
    else if (code === 23) look.italic = false;
    else if (code === 24) look.underline = false;
    else if (code === 27) look.inverse = false;
    else if (code === 29) look.strike = false;
    else if (code >= 30 && code <= 37) look.fg = NAMES[code - 30];
    else if (code >= 90 && code <= 97) look.fg = `bright-${NAMES[code - 90]}`;
    else if (code === 39) look.fg = undefined;
    else if (code >= 40 && code <= 47) look.bg = NAMES[code - 40];
    else if (code >= 100 && code <= 107) look.bg = `bright-${NAMES[code - 100]}`;
    else if (code === 49) look.bg = undefined;
    else if (code === 38 || code === 48) {
      // `38;5;N` and `38;2;R;G;B`, or with colons, where an unnamed colour space may stand before R.
      const values = sub.length ? sub : all.slice(n + 1).map(Number);
      const kind = values[0];
      const colour = kind === 5 ? palette(values[1]) : kind === 2 ? nearest(values.slice(sub.length > 4 ? 2 : 1).slice(0, 3)) : undefined;
      if (!sub.length) n += kind === 5 ? 2 : kind === 2 ? 4 : 0;
      look[code === 38 ? 'fg' : 'bg'] = colour;
    }
  }
}

/** One of the 256: sixteen with names, a cube of 6 × 6 × 6, and 24 greys. */
function palette(n) {
  if (!(n >= 0 && n <= 255)) return undefined;
  if (n < 8) return NAMES[n];
  if (n < 16) return `bright-${NAMES[n - 8]}`;
  if (n >= 232) return nearest(Array(3).fill(8 + (n - 232) * 10));
  const level = (step) => (step ? 55 + step * 40 : 0);
  return nearest([36, 6, 1].map((unit) => level(Math.floor((n - 16) / unit) % 6)));
}

/** The named colour of the same hue; one with hardly any hue is a grey. */
function nearest([r = 0, g = 0, b = 0]) {
  const most = Math.max(r, g, b);
  const least = Math.min(r, g, b);
  if (most - least < 40) return most < 48 ? 'black' : most < 144 ? 'bright-black' : most < 220 ? 'white' : 'bright-white';
  const middle = (most + least) / 2;
  const bits = (r > middle) + (g > middle) * 2 + (b > middle) * 4;
  return (most > 220 ? 'bright-' : '') + NAMES[bits];
}
