/** A model on one device, for bench/wasm.mjs: a line of JSON in, a line of JSON out. */
import { createInterface } from 'node:readline';
import { loadModel, openNative, openWasmFile, useDevice } from '../dist/index.node.js';
import { measureRound } from './_tokens.mjs';

const { device, threads, variant, file } = JSON.parse(process.argv[2]);
const opened = device === 'native' ? openNative({ threads }) : openWasmFile({ threads, variant });
await useDevice(opened);
const model = await loadModel(file);
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

say({ description: opened.description });
for await (const line of createInterface({ input: process.stdin })) {
  const { round, prompt, generate } = JSON.parse(line);
  say(await measureRound(model, round, prompt, generate));
}
