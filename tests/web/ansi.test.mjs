// What a terminal would show of a line, in the colours this page has.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pieces, plain } from '../../web/ansi.js';

/** The pieces in one line: `{red bold}text`. */
const shown = (line) => pieces(line).map(({ text, classes }) => (classes ? `{${classes}}${text}` : text)).join('');
const check = (line, expected) => assert.equal(shown(line), expected, JSON.stringify(line));

test('colours and weights become names', () => {
  check('plain', 'plain');
  check('', '');
  check('a \x1b[31mred\x1b[0m z', 'a {red}red z');
  check('\x1b[1;32mok\x1b[22;39m.', '{green bold}ok.');
  check('\x1b[91;44mx\x1b[49myy', '{bright-red on-blue}x{bright-red}yy');
  check('\x1b[2mdim \x1b[3;4;9mall\x1b[23;24;29m dim', '{dim}dim {dim italic underline strike}all{dim} dim');
  check('\x1b[4:3mcurly\x1b[4:0m no', '{underline}curly no');
  check('\x1b[7mturned\x1b[27m \x1b[31;7mred\x1b[m', '{on-default}turned {on-red}red');
  check('\x9b33mC1\x9b0m', '{yellow}C1');
});

test('more colours than sixteen are shown as the nearest of them', () => {
  check('\x1b[38;5;9ma\x1b[48;5;4mb\x1b[39;49m', '{bright-red}a{bright-red on-blue}b');
  check('\x1b[38;5;196mred\x1b[38;5;28mgreen\x1b[38;5;244mgrey', '{bright-red}red{green}green{bright-black}grey');
  check('\x1b[38;2;255;128;0morange\x1b[0m', '{bright-yellow}orange');
  check('\x1b[38:2::30:120:250mblue\x1b[38:5:226myellow', '{bright-blue}blue{bright-yellow}yellow');
  check('\x1b[38;2;250;250;250;1mwhite and bold', '{bright-white bold}white and bold');
  check('\x1b[38;5mcut', 'cut');
  check('\x1b[38;5;999mnone', 'none');
});

test('everything else a terminal understands is left out', () => {
  check('\x1b]0;a title\x07text', 'text');
  check('\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\!', 'link!');
  check('\x1b[2J\x1b[1;1Hhome\x1b[?25l\x1b(B\x1b=\x1b7', 'home');
  check('bell\x07 null\0 tab\tdel\x7f', 'bell null tab\tdel');
  check('\x1b[>4;2mno colour', 'no colour');
  check('open \x1b]0;never ends', 'open 0;never ends');
  check('cut \x1b[31', 'cut 31');
  check('end \x1b', 'end ');
});

test('a line that was drawn anew is shown as it was in the end', () => {
  check('  0%\r 50%\r100%', '100%');
  check('a longer one\rX', 'X longer one');
  check('a longer one\r\x1b[KX', 'X');
  check('half\x1b[2K\rwhole', 'whole');
  check('from windows\r', 'from windows');
  check('\x1b[32m|\x08/\x08-\x1b[0m', '{green}-');
  check('abc\x1b[1Kd', '   d');
  check('abc\x1b[2Kd', '   d');
});

test('what is searched and saved is the text alone', () => {
  assert.equal(plain('\x1b[31mred\x1b[0m 1%\r'), 'red 1%');
  assert.equal(plain('as it stands'), 'as it stands');
});

test('no line is too strange or too long', () => {
  let seed = 5;
  const random = (n) => (seed = (seed * 48_271) % 2_147_483_647) % n;
  for (let round = 0; round < 2_000; round++) {
    const line = Array.from({ length: random(30) }, () => ['\x1b', '[', '31', ';', 'm', 'K', '\r', '\b', 'a', '😀', ':', '5', '\x9b', ']', '\\', '\x07'][random(16)]).join('');
    assert.doesNotMatch(plain(line), /[\0-\x08\x0a-\x1f\x7f-\x9f]/, JSON.stringify(line));
  }
  assert.equal(plain(`\x1b]${'x'.repeat(8_192)}`).length, 8_192);
});
