// The JSON text that a progress report came as. A report's `details` are any JSON, and read as values they would be shown
// as other numbers than were sent (json_text.js says which). What has no details needs no source, and keeps none.

import { elements, members } from './json_text.js';

const sources = new WeakMap(); // progress → [text, where in it, as names and numbers]

/** Remembers where in a message's text its progress reports stand, for those with details. */
export function keepSource(message, text) {
  if (!text.includes('"details"')) return;
  const { progress, task, tasks } = message;
  keep(progress, text, ['progress']);
  keep(task?.progress, text, ['task', 'progress']);
  tasks?.forEach((each, n) => keep(each.progress, text, ['tasks', n, 'progress']));
}

function keep(progress, text, path) {
  if (progress?.details !== undefined) sources.set(progress, [text, path]);
}

/** The text of a report's `details`; for a report that came another way, what its value would be written as. */
export function detailsText(progress) {
  const [text, path] = sources.get(progress) ?? [JSON.stringify(progress), []];
  const part = (from, step) => (typeof step === 'number' ? elements(from)[step] : members(from).get(step)) ?? '';
  return [...path, 'details'].reduce(part, text);
}
