// JSON as text: cut apart and laid out without ever being read as values.
//
// A payload is kept by the hub byte for byte. `JSON.parse` would change it on its way to the eye: large numbers are rounded,
// `1.10` becomes `1.1`, `1e400` Infinity, keys that look like numbers move to the front, and of two equal keys one is
// gone. Here the text is only split into tokens, and what is shown is those tokens in their order with other white space
// between. Text that is no JSON comes out as it went in.

/** White space; strings; the six punctuation marks; and runs of anything else: numbers, words, and what is no JSON. */
const TOKEN = /[ \t\n\r]+|"[^"\\]*(?:\\[^]?[^"\\]*)*"?|[[\]{},:]|[^ \t\n\r[\]{},:"]+/g;

/** Deeper than this nothing is moved further to the right: a text of brackets alone would fill the memory with spaces. */
const DEPTH_MAX = 40;

const OPENS = { '{': '}', '[': ']' };

/** The tokens of a text, white space left out. */
const tokens = (text) => (text.match(TOKEN) ?? []).filter((token) => !/^[ \t\n\r]/.test(token));

/** Lays a JSON text out over lines. Every token stays what it is, and where it is among the others. */
export function indented(text, indent = '  ') {
  const all = tokens(text);
  let out = '';
  let depth = 0;
  const line = () => `\n${indent.repeat(Math.max(0, Math.min(depth, DEPTH_MAX)))}`;
  all.forEach((token, n) => {
    const before = all[n - 1];
    if (token === '}' || token === ']') {
      depth--;
      out += OPENS[before] === token ? token : line() + token;
    } else {
      if (before in OPENS || before === ',') out += line();
      else if (before !== undefined && token !== ',' && token !== ':') out += ' ';
      out += token;
      if (token in OPENS) depth++;
    }
  });
  return out;
}

/**
 * The members of a JSON object, as a Map from name to the text of the value; of equal names the last, as `JSON.parse` has
 * it. Empty for what is no object.
 */
export function members(text) {
  const found = new Map();
  for (const { name, value } of parts(text, '{')) found.set(name, value);
  return found;
}

/** The elements of a JSON array, as texts. Empty for what is no array. */
export const elements = (text) => [...parts(text, '[')].map(({ value }) => value);

/** Walks over what stands directly within the outermost brackets. */
function* parts(text, bracket) {
  let depth = 0;
  let from; // where the value begins
  let key;
  let name;
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    if (/^[ \t\n\r]/.test(token)) continue;
    if (depth === 0) {
      if (token !== bracket) return;
      depth = 1;
      continue;
    }
    const closes = token === '}' || token === ']';
    if (depth === 1 && (token === ',' || closes)) {
      if (from !== undefined) yield { name, value: text.slice(from, index).trimEnd() };
      from = key = name = undefined;
      if (closes) return;
    } else if (depth === 1 && token === ':' && bracket === '{' && name === undefined) {
      name = unquoted(key);
      from = undefined;
    } else {
      if (depth === 1) key = token;
      from ??= index;
      if (token in OPENS) depth++;
      else if (closes) depth--;
    }
  }
}

function unquoted(token) {
  try {
    return JSON.parse(token);
  } catch {
    return token;
  }
}
