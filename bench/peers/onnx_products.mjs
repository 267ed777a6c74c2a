/**
 * onnxruntime-node as a program of _process.mjs: MatMul of x (m, k) by a constant (k, n), float32, which it packs once at load.
 * `node onnx_products.mjs FOLDER THREADS`, FOLDER being where `npm install onnxruntime-node` was run.
 *
 * {"what": "open", "m", "n", "k"}; {"what": "run", "repeats"}: seconds of one product; {"what": "version"}
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const [folder, threads] = [process.argv[2], Number(process.argv[3])];
const require = createRequire(join(folder, 'package.json'));
const ort = require('onnxruntime-node');
const FLOAT = 1;

/** The wire format of protocol buffers, as far as one node needs it: numbers, bytes, messages in messages. */
function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return Buffer.from([...bytes, value]);
}
const number = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field, value) => {
  const data = Buffer.from(value);
  return Buffer.concat([varint(field * 8 + 2), varint(data.length), data]);
};
const message = (field, ...parts) => bytes(field, Buffer.concat(parts));

/** A model of one MatMul: y = x w. The numbers are those of onnx.proto. */
function model(m, n, k) {
  const weights = Float32Array.from({ length: k * n }, () => Math.random() - 0.5);
  const dimensions = (...sizes) => message(2, ...sizes.map((size) => message(1, number(1, size))));
  const value = (field, name, ...sizes) =>
    message(field, bytes(1, name), message(2, message(1, number(1, FLOAT), dimensions(...sizes))));
  const node = message(1, bytes(1, 'x'), bytes(1, 'w'), bytes(2, 'y'), bytes(4, 'MatMul'));
  const tensor = message(
    5,
    number(1, k),
    number(1, n),
    number(2, FLOAT),
    bytes(8, 'w'),
    bytes(9, weights.buffer),
  );
  const graph = message(7, node, bytes(2, 'product'), tensor, value(11, 'x', m, k), value(12, 'y', m, n));
  return Buffer.concat([number(1, 8), graph, message(8, number(2, 17))]);
}

let session;
let feeds;
async function answer({ what, m, n, k, repeats }) {
  if (what === 'version') {
    const path = join(folder, 'node_modules/onnxruntime-node/package.json');
    return { version: `onnxruntime-node ${JSON.parse(readFileSync(path, 'utf8')).version}` };
  }
  if (what === 'open') {
    const options = { intraOpNumThreads: threads, interOpNumThreads: 1 };
    session = await ort.InferenceSession.create(model(m, n, k), options);
    feeds = { x: new ort.Tensor('float32', new Float32Array(m * k).fill(0.25), [m, k]) };
    await session.run(feeds);
    return {};
  }
  const start = performance.now();
  for (let i = 0; i < repeats; i++) await session.run(feeds);
  return { seconds: (performance.now() - start) / 1000 / repeats };
}

for await (const line of createInterface({ input: process.stdin })) {
  const reply = await answer(JSON.parse(line)).catch((error) => ({ error: error.message }));
  console.log(JSON.stringify(reply));
}
