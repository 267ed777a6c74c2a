/**
 * A conversation of many turns of equal length: what turn t costs, next to reading everything again at every turn (what a model without
 * a state must do when it keeps nothing) and next to llama.cpp, which appends to its own state, turn by turn in alternation; then an
 * edit of an earlier message. Every answer is forced to the same number of tokens. `npm run bench chat -- --turns 200 --peer FOLDER`,
 * with FOLDER as in peers/_llama.mjs. Without --model: mamba-130m's layers with random weights and bytes as tokens.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  byteTokenizer,
  chatTemplate,
  currentDevice,
  LanguageModel,
  loadModel,
  writeGguf,
} from '../dist/index.node.js';
import { PRESETS } from '../dist/train/index.js';
import { table } from '../scripts/lib/markdown.mjs';
import { machineLines, median } from './_report.mjs';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    turns: { type: 'string', default: '200' },
    'answer-tokens': { type: 'string', default: '16' },
    threads: { type: 'string', default: String(availableParallelism()) },
    peer: { type: 'string' },
  },
});
process.env.MAMBA_THREADS = values.threads;
const turns = Number(values.turns);
const answerTokens = Number(values['answer-tokens']);
/** Neighbours on each side that a median is taken over. */
const NEIGHBOURS = 4;
const marks = [...new Set([2, turns / 4, turns / 2, turns].map(Math.round))].filter(
  (t) => t > 1 && t <= turns,
);
const mib = (bytes) => (bytes / 2 ** 20).toFixed(1);

/** Of turn t, always of the same length. */
const message = (t) => `Message ${String(t).padStart(4, '0')}: tell me something about Mamba.`;
const TEMPLATE = 'chatml';
const greedy = { maxTokens: answerTokens, temperature: 0, eosId: null };

async function openModel() {
  if (values.model) return loadModel(values.model);
  const model = new LanguageModel({ ...PRESETS['mamba-130m'], vocab_size: 256 }, { seed: 0 });
  model.tokenizer = byteTokenizer();
  await model.refreshFingerprint();
  return model;
}

/** Runs a turn to its end. */
async function finish(parts) {
  const start = performance.now();
  const tokens = [];
  for await (const part of parts) tokens.push(...part.tokens);
  if (tokens.length !== answerTokens)
    throw new Error(`bench chat: expected answers of ${answerTokens} tokens, got ${tokens.length}.`);
  return { seconds: (performance.now() - start) / 1000, tokens };
}

/** The ids that turn t adds to what was said before, up to its answer. */
function framing(tokenizer) {
  const template = chatTemplate(TEMPLATE, tokenizer.specialTokens);
  const render = (...contents) => {
    const messages = contents.map((content, i) => ({ role: i % 2 === 0 ? 'user' : 'assistant', content }));
    return template.render(messages, { addGenerationPrompt: true });
  };
  return (t, text = message(t)) => {
    if (t === 1) return tokenizer.encode(render(text));
    const before = render('question').length + 'answer'.length;
    return tokenizer.encode(render('question', 'answer', text).slice(before), { isContinuation: true });
  };
}

/** llama.cpp in a process of its own, or null. */
async function openPeer(model, folder) {
  if (!values.peer) return null;
  const path = join(folder, 'model.gguf');
  await writeGguf(model, path);
  const worker = fileURLToPath(new URL('./peers/llama_chat.mjs', import.meta.url));
  const contextTokens = turns * (answerTokens + 2 * frame(2).length) + 1024;
  const args = [worker, values.peer, path, values.threads, String(contextTokens)];
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('bench chat: llama.cpp ended early; its message is above.');
    return JSON.parse(value);
  };
  const { version } = await answer();
  const ask = (request) => {
    child.stdin.write(`${JSON.stringify({ answer: answerTokens, ...request })}\n`);
    return answer();
  };
  return { version, ask, close: () => child.stdin.end() };
}

const around = (list, t) => median(list.slice(Math.max(2, t - NEIGHBOURS), t + NEIGHBOURS + 1));

const folder = mkdtempSync(join(tmpdir(), 'mamba-chat-'));
const model = await openModel();
const frame = framing(model.tokenizer);
const peer = await openPeer(model, folder);
try {
  const session = model.startChat({ template: TEMPLATE, seed: 0 });
  const [ours, theirs, again] = [[], [], {}];
  const [oursAt, theirsAt] = [{}, {}];
  let sameAnswers = 0;
  const peerTokens = [0]; // after turn t, the answer included
  for (let t = 1; t <= turns; t++) {
    if (marks.includes(t)) {
      const messages = [...session.messages, { role: 'user', content: message(t) }];
      const rounds = t < 10 ? 3 : 1;
      const seconds = [];
      for (let i = 0; i < rounds; i++) {
        seconds.push((await finish(model.chat(messages, { ...greedy, template: TEMPLATE }))).seconds);
      }
      again[t] = median(seconds);
    }
    const { seconds, tokens } = await finish(session.send(message(t), greedy));
    ours[t] = seconds;
    oursAt[t] = { ...session.stats, residentBytes: process.memoryUsage.rss() };
    if (peer) {
      theirsAt[t] = await peer.ask({ ids: frame(t) });
      theirs[t] = theirsAt[t].seconds;
      peerTokens[t] = theirsAt[t].tokens;
      if (theirsAt[t].output.every((id, i) => id === tokens[i])) sameAnswers++;
    }
    if (t % 20 === 0) console.error(`turn ${t} of ${turns}`);
  }

  const lines = machineLines(currentDevice().description, ...(peer ? [peer.version] : []));
  const { d_model, n_layer, vocab_size } = model.config;
  const what = values.model ?? 'random weights';
  lines.push(
    `${what}: d_model ${d_model}, ${n_layer} layers, vocabulary ${vocab_size}; f32. A turn reads ${frame(2).length} tokens and answers ` +
      `with ${answerTokens}. Seconds of turn t, median of up to ${2 * NEIGHBOURS + 1} turns around it (everything again: one run).`,
    '',
  );
  const columns = [
    'turn',
    'tokens so far',
    'mamba.ts session',
    'tokens read',
    'state MiB',
    'resident MiB',
    'everything again',
  ];
  const rows = marks.map((t) => [
    t,
    oursAt[t].tokens,
    around(ours, t).toFixed(3),
    oursAt[t].readTokens,
    mib(oursAt[t].stateBytes),
    mib(oursAt[t].residentBytes),
    again[t].toFixed(3),
    ...(peer ? [around(theirs, t).toFixed(3), mib(theirsAt[t].residentBytes)] : []),
  ]);
  lines.push(table([...columns, ...(peer ? ['llama.cpp, appended', 'its resident MiB'] : [])], rows));
  const { snapshots, snapshotBytes } = session.stats;
  lines.push('', `${snapshots} snapshots, ${mib(snapshotBytes)} MiB.`);
  if (peer) lines.push(`The same answer as llama.cpp in ${sameAnswers} of ${turns} turns.`);

  lines.push('', `Then message t is edited, and answered anew:`, '');
  const edits = [];
  for (const t of [Math.round(turns * 0.975), Math.round(turns / 2)].filter((t) => t > 1)) {
    const index = session.messages.findIndex(({ content }) => content === message(t));
    const changed = message(t).replace('tell', 'TELL');
    const { seconds } = await finish(session.edit(index, changed, greedy));
    const row = [t, seconds.toFixed(3), session.stats.readTokens];
    if (peer) {
      const theirs = await peer.ask({ keep: peerTokens[t - 1], ids: frame(t, changed) });
      row.push(theirs.seconds.toFixed(3), theirs.readTokens);
    }
    edits.push(row);
  }
  lines.push(
    table(['edited turn', 'mamba.ts', 'tokens read', ...(peer ? ['llama.cpp', 'tokens read'] : [])], edits),
  );
  console.log(lines.join('\n'));
  session.dispose();
} finally {
  peer?.close();
  model.dispose();
  rmSync(folder, { recursive: true, force: true });
}
