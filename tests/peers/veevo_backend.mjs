// A Veevo customer's backend as the vendor's documents would have one write it: the signature of every callback is compared in
// constant time with the HMAC of the raw body. Usage: node veevo_backend.mjs SECRET REPLY, where REPLY is the JSON that answers
// onCallStart. Prints its port, and then one JSON line for each callback.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';

const [secret, reply] = process.argv.slice(2);

function verified(body, signature) {
  const expected = createHmac('sha256', secret).update(body).digest('hex');
  try {
    return timingSafeEqual(Buffer.from(signature ?? ''), Buffer.from(expected)); // throws when the lengths differ
  } catch {
    return false;
  }
}

const server = createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const body = Buffer.concat(pieces);
    const good = verified(body, request.headers['x-veevo-signature']);
    const answers = {
      '/calls/start': { ...JSON.parse(reply), onToolCallUrl: `http://127.0.0.1:${server.address().port}/calls/tool` },
      '/calls/tool': { result: 'Two units, délivrées vendredi ☎.' },
      '/calls/end': {},
    };
    response.writeHead(good ? 200 : 401, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(good ? answers[request.url] : { error: 'bad signature' }));
    console.log(JSON.stringify({ path: request.url, good, body: JSON.parse(body) }));
  });
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
