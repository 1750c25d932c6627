// A WebSocket server that sends back what it gets, and pages for a browser.
// usage: node ws-server.js; its first line is the port.
const http = require('http');
const { WebSocketServer } = require('ws');
const page = `<!doctype html><script>
const report = (text) => fetch('/report', { method: 'POST', body: text });
(async () => {
  try {
    const echoed = await (await fetch('/echo', { method: 'POST', body: 'x'.repeat(300000) })).text();
    if (echoed.length !== 300000) throw new Error('echo of ' + echoed.length);
    await new Promise((done, fail) => {
      const s = new WebSocket(location.protocol.replace('http', 'ws') + '//' + location.host + '/ws');
      s.binaryType = 'arraybuffer';
      s.onopen = () => { s.send('hello'); s.send(new Uint8Array(100000)); };
      let got = 0;
      s.onmessage = (m) => { if (++got === 2) { m.data.byteLength === 100000 ? s.close(4001, 'bye') : fail(new Error('message')); } };
      s.onclose = (e) => e.code === 4001 && got === 2 ? done() : fail(new Error('close ' + e.code + ' after ' + got));
      s.onerror = () => fail(new Error('socket'));
    });
    report('ok');
  } catch (e) { report(String(e)); }
})();
</script>`;
const server = http.createServer((req, res) => {
  if (req.url === '/page') { res.setHeader('content-type', 'text/html'); res.end(page); return; }
  if (req.url === '/report') {
    let text = '';
    req.on('data', (p) => { text += p; }).on('end', () => { console.log('report ' + text); res.end(); });
    return;
  }
  req.pipe(res);
});
new WebSocketServer({ server }).on('connection', (s, req) => {
  console.log('opened ' + req.headers.via);
  s.on('message', (m, binary) => s.send(m, { binary })).on('close', (code) => console.log('closed ' + code));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
