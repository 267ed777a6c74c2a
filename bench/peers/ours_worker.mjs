/**
 * mamba.ts as a program of _process.mjs. Requests, one JSON line each:
 *   {"what": "open", "file" or "config", "weights", "precision", "settings"}   a model, and what of it is measured (benchRounds)
 *   {"what": "round"}                      measures once
 *   {"what": "versions"}
 */
import { createInterface } from 'node:readline';
import { benchRounds, currentDevice, LanguageModel, loadModel } from '../../dist/index.node.js';

let [model, measure] = [null, null];
let peakMib = null;

async function open({ file, config, weights, precision, settings }) {
  model?.dispose();
  model = file ? await loadModel(file, { weights, precision }) : new LanguageModel(config);
  if (!file && precision) model.precision = precision;
  measure = benchRounds(model, settings);
  return { parameters: model.parameterCount };
}

/** Memory is that of the first round: later ones have measured the limits of the machine too. */
async function round() {
  const measured = await measure();
  peakMib ??= measured.peakBytes / 2 ** 20;
  return { ...measured, peakMib };
}

const answers = { versions: () => ({ versions: [currentDevice().description] }), open, round };

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    console.log(JSON.stringify(await answers[request.what](request)));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }));
  }
}
