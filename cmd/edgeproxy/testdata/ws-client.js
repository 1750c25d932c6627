// Asks a WebSocket server for all that a client can want of the way there.
// usage: node ws-client.js ws://host:port/; says ok or what went wrong.
const { WebSocket } = require('ws');
const assert = require('assert');
const url = process.argv[2];
const open = () => new Promise((done, fail) => { const s = new WebSocket(url); s.once('open', () => done(s)); s.once('error', fail); });
const next = (s) => new Promise((done, fail) => { s.once('message', (m, binary) => done([m, binary])); s.once('close', (c) => fail(new Error('closed ' + c))); });
const closed = (s) => new Promise((done) => s.once('close', (code, why) => done([code, String(why)])));
(async () => {
  const s = await open();
  for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
    const sent = Buffer.alloc(size, 7);
    s.send(sent);
    const [got, binary] = await next(s);
    assert(binary && sent.equals(got), 'binary of ' + size);
  }
  s.send('täxt');
  assert.deepStrictEqual((await next(s)).map(String), ['täxt', 'false']);
  s.send('in ', { fin: false });
  s.send('pieces', { fin: true });
  assert.strictEqual(String((await next(s))[0]), 'in pieces');
  const pong = new Promise((done) => s.once('pong', done));
  s.ping('are you there');
  assert.strictEqual(String(await pong), 'are you there');
  s.close(4321, 'done');
  assert.deepStrictEqual(await closed(s), [4321, 'done']);
  const many = await Promise.all(Array.from({ length: 50 }, open));
  await Promise.all(many.map((m, i) => { m.send('n' + i); return next(m).then(([g]) => assert.strictEqual(String(g), 'n' + i)); }));
  for (const m of many) { const c = closed(m); m.terminate(); await c; }
  console.log('ok');
  process.exit(0);
})().catch((e) => { console.error(e); process.exit(1); });
