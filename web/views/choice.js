// A choice among names: a list while there are few, a field with suggestions once there are many. The names come and go
// while somebody may be looking at them.

import { h } from './dom.js';

/** More names than these nobody looks through: they are typed. */
const LISTED_MAX = 40;

/** `all`: what no choice is called. `label`: what is chosen. `onChange(name)`. */
export function choiceView({ label, all, onChange }) {
  const changed = ({ target }) => onChange(target.value.trim());
  const suggestions = h('datalist', { id: `names-${label.toLowerCase()}` });
  const select = h('select', { 'aria-label': label, onchange: changed });
  const field = h('input', { 'aria-label': label, placeholder: all, hidden: true, onchange: changed, spellcheck: false, autocomplete: 'off' });
  field.setAttribute('list', suggestions.id);
  let names = [];
  let value = '';
  let drawn;

  function draw() {
    const offered = value && !names.includes(value) ? [...names, value] : names; // the one that was taken stays, whatever the hub has
    const as_text = JSON.stringify(offered.sort());
    if (as_text === drawn || document.activeElement === select) return; // an open list does not change under the hand
    drawn = as_text;
    const is_long = offered.length > LISTED_MAX;
    if (is_long && select.hidden === false) field.value = value;
    select.hidden = is_long;
    field.hidden = !is_long;
    const options = offered.map((name) => h('option', { value: name }, name));
    if (is_long) suggestions.replaceChildren(...options);
    else select.replaceChildren(h('option', { value: '' }, all), ...options);
    select.value = value;
  }

  select.addEventListener('blur', draw);

  return {
    elements: [select, field, suggestions],

    show(next) {
      value = next;
      draw();
      select.value = value;
      if (document.activeElement !== field) field.value = value;
    },

    offer(next) {
      names = [...next];
      draw();
    },
  };
}
