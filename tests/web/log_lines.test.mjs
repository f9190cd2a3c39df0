import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LINES_MAX, LogLines } from '../../web/views/log_lines.js';

const line = (seq) => ({ seq, message: `line ${seq}` });
const lines = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => line(from + n));
const seqs = (log) => log.where().map(({ seq }) => seq);

test('lines stand in order, each once, in whatever order they come', () => {
  const log = new LogLines();
  assert.deepEqual(log.add([line(5), line(6)]), { added: 2, appended: true });
  assert.deepEqual(log.add([line(6), line(7)]), { added: 1, appended: true });
  assert.deepEqual(log.add(lines(1, 7)), { added: 4, appended: false });
  assert.deepEqual(log.add([line(9), line(3), line(8)]), { added: 2, appended: false });
  assert.deepEqual(seqs(log), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.deepEqual([log.first.seq, log.last.seq, log.size, log.at(2).seq], [1, 9, 9, 3]);
  assert.deepEqual(log.where(({ seq }) => seq > 7).map(({ seq }) => seq), [8, 9]);
});

test('what is missing between is found', () => {
  const log = new LogLines();
  log.add([line(3), line(4), line(9), line(11)]);
  assert.deepEqual(log.gaps(), [{ after: 4, n: 4 }, { after: 9, n: 1 }]);
});

test('there is a bound, and the oldest leave', () => {
  const log = new LogLines();
  log.add(lines(1, LINES_MAX));
  assert.equal(log.trim(), 0);
  log.add(lines(LINES_MAX + 1, LINES_MAX + 10));
  assert.equal(log.trim(), 1_010);
  assert.deepEqual([log.first.seq, log.size], [1_011, LINES_MAX - 1_000]);
});
