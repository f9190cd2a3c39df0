// JSON that is shown is the JSON that was sent.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elements, indented, members } from '../../web/json_text.js';

test('a text is laid out over lines, and says what it said', () => {
  const check = (text, expected) => assert.equal(indented(text), expected);
  check('{"order_id":12345678901234567890,"price":1.10}', '{\n  "order_id": 12345678901234567890,\n  "price": 1.10\n}');
  check('{"10":"a","2":"b","dup":1,"dup":2}', '{\n  "10": "a",\n  "2": "b",\n  "dup": 1,\n  "dup": 2\n}');
  check('[1e400,-0.0,1E+2,[],{}, [ ] ]', '[\n  1e400,\n  -0.0,\n  1E+2,\n  [],\n  {},\n  []\n]');
  check('"a\\u0041 , {\\"x\\": 1} \\\\"', '"a\\u0041 , {\\"x\\": 1} \\\\"');
  check('  null\n', 'null');
  check('{"a":{"b":[{"c":"d:e,f"}]}}', '{\n  "a": {\n    "b": [\n      {\n        "c": "d:e,f"\n      }\n    ]\n  }\n}');
  check('', '');
});

test('what is no JSON keeps its words', () => {
  for (const text of ['}{', '"open', 'hello world', '[1 2', '{"a" 1', '\\', '"\\']) {
    assert.equal(squeezed(indented(text)), squeezed(text), text);
  }
});

test('any JSON keeps each of its tokens, and is the same value afterwards', () => {
  let seed = 11;
  const random = (n) => (seed = (seed * 48_271) % 2_147_483_647) % n;
  const pick = (...all) => all[random(all.length)];
  const space = () => pick('', '', ' ', '\n', '\t\r ');
  const string = () => `"${Array.from({ length: random(6) }, () => pick('a', 'ä', '😀', '\\n', '\\"', '\\\\', '\\u2028', ' ', ',', ':', '{', ']')).join('')}"`;
  const number = () => pick('0', '-0', '1.10', '1e400', '12345678901234567890', '0.1000000000000000055', '1E-7');
  const many = (make) => Array.from({ length: random(4) }, () => space() + make() + space()).join(',');
  const value = (depth) => {
    const kind = random(depth > 3 ? 3 : 5);
    if (kind === 0) return string();
    if (kind === 1) return number();
    if (kind === 2) return pick('true', 'false', 'null');
    if (kind === 3) return `[${many(() => value(depth + 1)) || space()}]`;
    return `{${many(() => `${string()}${space()}:${space()}${value(depth + 1)}`) || space()}}`;
  };
  for (let round = 0; round < 2_000; round++) {
    const text = value(0);
    const shown = indented(text);
    assert.equal(squeezed(shown), squeezed(text));
    assert.deepEqual(JSON.parse(shown), JSON.parse(text));
    const parsed = JSON.parse(text);
    if (Array.isArray(parsed)) assert.deepEqual(elements(text).map((each) => JSON.parse(each)), parsed);
    else if (parsed && typeof parsed === 'object') {
      const found = [...members(text)].map(([name, each]) => [name, JSON.parse(each)]);
      assert.deepEqual(Object.fromEntries(found), parsed);
    }
  }
});

test('a megabyte is no effort, of one string or of a hundred thousand numbers', () => {
  for (const text of [`{"a":"${'x\\n'.repeat(350_000)}"}`, `[${Array.from({ length: 100_000 }, () => '1.10').join(',')}]`, '['.repeat(5_000) + ']'.repeat(5_000)]) {
    assert.equal(indented(text, '').replaceAll(/\n|(?<=:) /g, ''), text);
  }
  assert.equal(members(`{"a":"${'x\\n'.repeat(350_000)}","b":1}`).get('b'), '1');
});

test('members are cut out as they stand', () => {
  const text = ' {"a" : [1, {"b":2.0}] ,"p\\u0061yload":{"x":1.10,"payload":0}, "result": 1e400, "e":{} }';
  assert.deepEqual([...members(text)], [['a', '[1, {"b":2.0}]'], ['payload', '{"x":1.10,"payload":0}'], ['result', '1e400'], ['e', '{}']]);
  assert.equal(members('{"dup":1,"dup":2}').get('dup'), '2');
  for (const none of ['', '[1]', '"{}"', 'null', '{', '{}']) assert.equal(members(none).size, 0, none);
  assert.deepEqual(elements('[{"a":[1,2]}, "x,y" ,3.0]'), ['{"a":[1,2]}', '"x,y"', '3.0']);
  for (const none of ['', '{}', '[', '[ ]', '1']) assert.deepEqual(elements(none), [], none);
});

/** Without the white space outside of strings. */
const squeezed = (text) => text.replace(/("[^"\\]*(?:\\[^]?[^"\\]*)*"?)|[ \t\n\r]+/g, '$1');
