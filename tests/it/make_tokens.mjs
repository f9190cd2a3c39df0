// Makes tokens with jose, with the private keys in the folder that is named: a line for each, as make_tokens.py does. The module is
// found where tests/deps.sh puts it.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, modules] = process.argv.slice(2);
const jose = await import(pathToFileURL(join(modules, 'jose/dist/webapi/index.js')));

const say = (what, good, token) => console.log(JSON.stringify([what, good, token]));
const key = async (alg) =>
  alg === 'HS256'
    ? readFileSync(join(folder, alg)).subarray(0, -1)
    : jose.importPKCS8(readFileSync(join(folder, `${alg}.private`), 'utf8'), alg);

const token = (issuer) =>
  new jose.SignJWT({ taskhub: { role: 'user' } }).setIssuer(issuer).setSubject('u1').setIssuedAt();

for (const alg of ['HS256', 'RS256', 'ES256', 'EdDSA']) {
  const signs = await key(alg);
  const header = { alg, typ: 'JWT' };
  const bare = () => token(alg).setAudience('taskhub').setExpirationTime('10m');
  const good = () => bare().setProtectedHeader(header);
  say(`jose ${alg}`, true, await good().sign(signs));
  say(`jose ${alg} for two`, true, await good().setAudience(['a', 'taskhub']).sign(signs));
  say(`jose ${alg} not yet`, false, await good().setNotBefore('2m').sign(signs));
  say(`jose ${alg} expired`, false, await good().setExpirationTime('-1m').sign(signs));
  say(`jose ${alg} for another`, false, await good().setAudience('other').sign(signs));
  const critical = { ...header, crit: ['b64'], b64: true };
  say(`jose ${alg} with crit`, false, await bare().setProtectedHeader(critical).sign(signs));
}
say('jose Ed25519', true, await token('EdDSA').setAudience('taskhub').setExpirationTime('10m')
  .setProtectedHeader({ alg: 'Ed25519' })
  .sign(await jose.importPKCS8(readFileSync(join(folder, 'EdDSA.private'), 'utf8'), 'Ed25519')));
const unsecured = new jose.UnsecuredJWT({ taskhub: { role: 'user' } }).setIssuer('HS256').setSubject('u1');
say('jose unsecured', false, unsecured.setAudience('taskhub').setExpirationTime('10m').encode());
const encrypted = new jose.EncryptJWT({ taskhub: { role: 'user' } }).setIssuer('HS256').setAudience('taskhub');
encrypted.setProtectedHeader({ alg: 'dir', enc: 'A128CBC-HS256' });
say('jose encrypted', false, await encrypted.setExpirationTime('10m').encrypt((await key('HS256')).subarray(0, 32)));
