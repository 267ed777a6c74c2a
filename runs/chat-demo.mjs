/**
 * Trains a small chat model from nothing, without a download, and asks it: capitals, continents and currencies of countries, follow-ups,
 * a name to keep in mind. What it gets right is counted on facts and phrasings it has and has not seen. `node runs/chat-demo.mjs`, with
 * --steps N or --minutes M, --seed S, --device native|wasm|reference, --out FOLDER.
 */
import { mkdirSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  byteTokenizer,
  currentDevice,
  LanguageModel,
  loadModel,
  MambaError,
  onDeviceNotice,
  saveModel,
  useDevice,
} from '../dist/index.node.js';
import { AdamW, languageModelling, makeSchedule, progressLine, train } from '../dist/train/index.js';
import { table } from '../scripts/lib/markdown.mjs';
import { chatBatches, TEMPLATE } from './_chat-batches.mjs';
import { examine } from './_chat-exam.mjs';
import { OFF_TOPIC_UNSEEN } from './_dialogues.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const CONFIG = { d_model: 128, n_layer: 4, vocab_size: 256 };
/** The rate and rows of runs/moby-dick.mjs; longer windows, so that there is something to keep in mind. */
const RECIPE = { batch: 4, length: 512, lr: 4e-3, warmup: 100, finalLr: 0.02, steps: 3000 };

const CONVERSATION = [
  'Hello!',
  'My name is Clara.',
  'What is the capital of France?',
  'And of Spain?',
  'Which continent is it in?',
  'How do people pay in Japan?',
  'Where is that?',
  'What is my name?',
];

async function main() {
  const { values } = parseArgs({
    options: {
      steps: { type: 'string' },
      minutes: { type: 'string' },
      seed: { type: 'string', default: '0' },
      device: { type: 'string' },
      out: { type: 'string', default: join(root, 'out/chat-demo') },
    },
  });
  const { out } = values;
  const seed = Number(values.seed);
  const budget = values.minutes
    ? { minutes: Number(values.minutes) }
    : { steps: Number(values.steps ?? RECIPE.steps) };
  onDeviceNotice((message) => console.error(message));
  if (values.device) await useDevice(values.device);
  mkdirSync(out, { recursive: true });

  const model = new LanguageModel(CONFIG, { seed });
  model.tokenizer = byteTokenizer();
  model.chatTemplate = TEMPLATE;
  const machine = `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, load ${loadavg()[0].toFixed(1)}`;
  console.log(`${machine}, ${currentDevice().description}`);
  console.log(`${model.parameterCount} parameters, byte by byte; the loss counts what the assistant says`);
  const optimizer = new AdamW(model.namedParameters(), { maxNorm: 1 });
  const line = progressLine(process.stderr, { bytes: true, steps: budget.steps ?? null });
  const run = await train({
    task: languageModelling(model),
    optimizer,
    batches: chatBatches({ ...RECIPE, seed }),
    schedule: makeSchedule({ peak: RECIPE.lr, warmup: RECIPE.warmup, final: RECIPE.finalLr }),
    budget,
    carryState: true,
    onProgress: line.handle,
  }).finally(line.end);
  optimizer.dispose();
  await saveModel(model, out);
  model.dispose();
  const { step, tokens, elapsedSeconds } = run;
  const speed = (tokens / elapsedSeconds).toFixed(0);
  console.log(
    `${elapsedSeconds.toFixed(0)} s of training: ${step} steps, ${tokens} tokens, ${speed} tokens/s\n`,
  );

  await show(out);
  return 0;
}

/** Everything below runs on the model as it is on the disk. */
async function show(out) {
  const shown = relative(process.cwd(), out) || '.';
  const model = await loadModel(out);
  const talk = () => {
    const session = model.startChat({ temperature: 0, maxTokens: 100 });
    const say = async (text) => {
      let answer = '';
      for await (const part of session.send(text)) answer += part.text;
      return answer;
    };
    return { say, session, end: () => session.dispose() };
  };

  const began = performance.now();
  const { results, unseen, refused } = await examine(talk);
  const rows = results.map(({ label, right, of }) => [
    label,
    `${right} of ${of}`,
    `${((100 * right) / of).toFixed(1)} %`,
  ]);
  console.log(table(['asked', 'right to the last letter', ''], rows));
  console.log(`exam: ${((performance.now() - began) / 1000).toFixed(0)} s\n`);

  console.log('A conversation:\n');
  const { say, session, end } = talk();
  for (const user of CONVERSATION) console.log(`> ${user}\n${await say(user)}`);
  const { tokens, stateBytes } = session.stats;
  console.log(`\n${tokens} tokens remembered in a state of ${stateBytes} bytes.\n`);
  end();

  const invented = unseen.length - refused;
  console.log(
    `It knows nothing else. Asked about countries it has never read of, it said that it does not know ${refused} times and made ` +
      `something up ${invented} times, for example:\n`,
  );
  for (const { user, got } of unseen.filter((_, i) => i % 6 === 0)) console.log(`> ${user}\n${got}`);
  for (const user of OFF_TOPIC_UNSEEN) {
    const { say, end } = talk();
    console.log(`> ${user}\n${await say(user)}`);
    end();
  }
  model.dispose();

  console.log(`\nTry it:\n  npx mamba-ts chat --model ${shown}`);
}

try {
  process.exitCode = await main();
} catch (error) {
  const isUsage = error?.code?.startsWith?.('ERR_PARSE_ARGS');
  if (!isUsage && !(error instanceof MambaError)) throw error;
  console.error(error.message);
  process.exitCode = isUsage ? 2 : 1;
}
