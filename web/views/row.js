// One task in the list. It is made once and then only touched where it changed.

import { isFinal } from '../store.js';
import { h, icon, setIcon, setText } from './dom.js';
import { moment, percentage, short, shortId, standing, title } from './words.js';

/** How long a row shows that its status has just changed. Not a fade: on a busy hub that would draw the page at every frame. */
const TOUCHED_MS = 700;

export class Row {
  #task;
  #icon = icon('pending');
  #status = h('span');
  #title = h('span', { class: 'name' });
  #id = h('span', { class: 'id' });
  #type = h('span', { class: 'type' });
  #bar = h('i');
  #track = h('span', { class: 'bar', 'aria-hidden': 'true' }, this.#bar);
  #percent = h('span', { class: 'percent' });
  #standing = h('span', { class: 'standing' });
  #queue = h('span', { class: 'queue' });
  #user = h('span', { class: 'user' });
  #age = h('time');
  #link;
  #position;
  #of;
  #touched; // the timer that ends it

  constructor(task, now) {
    this.#link = h('a', { class: 'row', href: `#/task/${encodeURIComponent(task.task_id)}` },
      h('span', { class: 'status' }, this.#icon, this.#status),
      h('span', { class: 'what' }, this.#title, this.#id),
      this.#type,
      h('span', { class: 'progress' }, this.#track, this.#percent, this.#standing),
      this.#queue, this.#user, this.#age);
    this.element = h('li', {}, this.#link);
    this.#id.textContent = shortId(task.task_id);
    this.#age.dateTime = task.created_at;
    this.#age.title = `created ${moment(task.created_at, now)}`;
    this.update(task, now);
  }

  /** Shows this record, if it is another than the one shown. */
  update(task, now) {
    const before = this.#task;
    if (task === before) return;
    this.#task = task;
    if (before?.status !== task.status) {
      setIcon(this.#icon, task.status);
      setText(this.#status, task.status);
      this.#link.dataset.status = task.status;
      if (before) this.#touch();
    }
    if (before?.title !== task.title || !before) {
      setText(this.#title, title(task));
      this.#title.title = title(task);
    }
    if (!before) {
      setText(this.#type, task.task_type);
      setText(this.#queue, task.queue ?? '');
      setText(this.#user, task.user_id ?? '');
      this.#type.title = task.task_type;
      this.#user.title = task.user_id ?? '';
    }
    const percent = percentage(task);
    const shown = percent !== undefined && !isFinal(task);
    this.#track.hidden = this.#percent.hidden = !shown;
    if (shown) {
      this.#bar.style.transform = `scaleX(${percent / 100})`;
      setText(this.#percent, `${Math.floor(percent)}%`);
    }
    this.tick(now);
  }

  /** Says to those who cannot see it where in the whole list it stands; the document has only a part. */
  place(position, of) {
    if (this.#position === position && this.#of === of) return;
    this.#position = position;
    this.#of = of;
    this.element.setAttribute('aria-posinset', position);
    this.element.setAttribute('aria-setsize', of);
  }

  #touch() {
    this.#link.classList.add('touched');
    clearTimeout(this.#touched);
    this.#touched = setTimeout(() => this.#link.classList.remove('touched'), TOUCHED_MS);
  }

  /** Says the times anew. */
  tick(now) {
    setText(this.#age, short(now - Date.parse(this.#task.created_at)));
    const standing_now = standing(this.#task, now);
    if (this.#standing.textContent === standing_now) return;
    this.#standing.textContent = standing_now;
    this.#standing.title = standing_now;
  }
}
