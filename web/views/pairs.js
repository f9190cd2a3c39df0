// Lists of names and values that change while somebody reads them. What stays the same is not touched, so that a text that
// is selected stays selected, and a link that has the focus keeps it.

import { h } from './dom.js';

/**
 * Keeps the children of an element in step with `items`, each by its key: those that are there already are updated, the
 * others made; what is not among the items leaves. `make(item)` gives `{element, update(item)}`.
 */
export function keyed(parent, keyOf, make) {
  const shown = new Map(); // key → what `make` gave
  return (items) => {
    const wanted = new Map(items.map((item) => [keyOf(item), item]));
    for (const [key, { element }] of shown) {
      if (wanted.has(key)) continue;
      element.remove();
      shown.delete(key);
    }
    let next = parent.firstChild;
    for (const [key, item] of wanted) {
      const each = shown.get(key) ?? make(item);
      shown.set(key, each);
      each.update(item);
      if (each.element === next) next = next.nextSibling;
      else parent.insertBefore(each.element, next);
    }
  };
}

/** A list of definitions. It is given `[name, says, content?]`: `says` tells whether it changed, `content()` makes what is shown; without it the text itself is. */
export function definitions(list) {
  return keyed(list, ([name]) => name, ([name]) => {
    const value = h('dd');
    let said;
    return {
      element: h('div', {}, h('dt', {}, name), value),
      update([, says, content = () => says]) {
        if (said === says) return;
        said = says;
        value.replaceChildren(...[content()].flat());
      },
    };
  });
}
