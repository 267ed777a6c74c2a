/**
 * mamba.ts as a program of _process.mjs. Requests, one JSON line each:
 *   {"what": "open", "file" or "shape" with "vocab", "weights", "precision", "settings"}  a model, and what of it is measured (benchRounds)
 *   {"what": "round"}                      measures once
 *   {"what": "versions"}
 */
import { createInterface } from 'node:readline';
import { benchRounds, currentDevice, LanguageModel, loadModel } from '../../dist/index.node.js';

let [model, measure] = [null, null];
const peakMib = () => process.resourceUsage().maxRSS / 1024;

async function open({ file, config, weights, precision, settings }) {
  model?.dispose();
  model = file ? await loadModel(file, { weights, precision }) : new LanguageModel(config);
  if (!file && precision) model.precision = precision;
  measure = benchRounds(model, settings);
  return { parameters: model.parameterCount };
}

const answers = {
  versions: () => ({
    versions: [currentDevice().description],
  }),
  open,
  round: async () => ({
    ...(await measure()),
    peakMib: peakMib(),
    deviceMib: currentDevice().memory.peakBytes / 2 ** 20,
  }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    console.log(JSON.stringify(await answers[request.what](request)));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }));
  }
}
