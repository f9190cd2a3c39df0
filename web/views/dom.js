// Making and changing elements. Text from tasks only ever becomes text nodes and attributes; nothing here parses HTML.

const SVG = 'http://www.w3.org/2000/svg';

/** An element. `props`: `class`, `on…` listeners, DOM properties, and anything else as attributes. Children: nodes, texts, or nothing. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (key === 'class') element.className = value;
    else if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key in element && !key.startsWith('aria')) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** A symbol of index.html. It says nothing to a screen reader: the word stands beside it. */
export function icon(name) {
  const element = document.createElementNS(SVG, 'svg');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#i-${name}`);
  element.setAttribute('class', `icon i-${name}`);
  element.setAttribute('aria-hidden', 'true');
  element.append(use);
  return element;
}

/** Turns an icon into another. */
export function setIcon(element, name) {
  if (element.classList.contains(`i-${name}`)) return;
  element.setAttribute('class', `icon i-${name}`);
  element.firstChild.setAttribute('href', `#i-${name}`);
}

/** Sets a text, and touches the document only when it is another. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A line through some numbers: 0 at the bottom, the largest at the top. */
export function sparkline(values, { width = 36, height = 18 } = {}) {
  const element = document.createElementNS(SVG, 'svg');
  const line = document.createElementNS(SVG, 'polyline');
  const most = Math.max(...values, 0.001);
  const step = width / Math.max(values.length - 1, 1);
  line.setAttribute('points', values.map((v, n) => `${(n * step).toFixed(1)},${(height - 1 - (v / most) * (height - 2)).toFixed(1)}`).join(' '));
  element.setAttribute('viewBox', `0 0 ${width} ${height}`);
  element.setAttribute('class', 'sparkline');
  element.setAttribute('aria-hidden', 'true');
  element.append(line);
  return element;
}

/** A function that has `draw` called at the next frame, once, however often it is called until then. */
export function atNextFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

/**
 * For a link that leads to the hub itself: a browser follows it without a token, so it is followed with a ticket, where the hub
 * asks who is calling.
 */
export const ticketed = (hub) => async (event) => {
  if (!hub.hasToken) return;
  event.preventDefault();
  const { href, target, download } = event.currentTarget;
  const url = new URL(href);
  url.searchParams.set('ticket', (await hub.ticket()).ticket);
  h('a', { href: url.href, target, download: download || undefined, rel: 'noopener' }).click();
};

/** A button that copies a text, as it is when it is pressed, and says so. */
export function copyButton(text, label = 'Copy') {
  const word = h('span', {}, label);
  return h('button', {
    class: 'quiet', type: 'button',
    async onclick() {
      try {
        await navigator.clipboard.writeText(text());
        word.textContent = 'Copied';
      } catch {
        word.textContent = 'Not allowed here';
      }
      setTimeout(() => (word.textContent = label), 1_500);
    },
  }, icon('copy'), word);
}
