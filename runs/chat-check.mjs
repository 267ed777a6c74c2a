/**
 * A conversation that is killed goes on as if nothing had happened: one process talks without a break; another saves after every turn
 * and gets SIGKILL in the middle of an answer; a third loads what was saved and finishes. Texts and tokens must be the same.
 * `node runs/chat-check.mjs --model DIR [--turns 12] [--template chatml]`; without --model: out/chat-demo.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ChatSession, loadModel, writeFileAtomic } from '../dist/index.node.js';

const self = fileURLToPath(import.meta.url);
const { values } = parseArgs({
  options: {
    model: { type: 'string', default: fileURLToPath(new URL('../out/chat-demo', import.meta.url)) },
    turns: { type: 'string', default: '12' },
    template: { type: 'string' },
    /** Of a child: the session file. */
    file: { type: 'string' },
    /** Of a child: the turn in whose answer it ends itself. */
    'kill-in': { type: 'string' },
  },
});
const turns = Number(values.turns);
const QUESTIONS = [
  'My name is Emma.',
  'What is the capital of Peru?',
  'And of Japan?',
  'Where is it?',
  'What is my name?',
];

/** Goes on with the session in the file, if there is one, and prints a line per finished turn. */
async function talk(file) {
  const model = await loadModel(values.model);
  const session = existsSync(file)
    ? ChatSession.fromBytes(readFileSync(file), model)
    : model.startChat({ template: values.template, seed: 11, maxTokens: 60 });
  const isSaid = ({ role }) => role === 'user';
  for (let t = session.messages.filter(isSaid).length; t < turns; t++) {
    const tokens = [];
    for await (const part of session.send(QUESTIONS[t % QUESTIONS.length])) {
      tokens.push(...part.tokens);
      if (String(t) === values['kill-in'] && tokens.length >= 5) process.kill(process.pid, 'SIGKILL');
    }
    await writeFileAtomic(file, await session.toBytes());
    console.log(JSON.stringify({ t, tokens, text: session.messages.at(-1).content }));
  }
}

/** Turns finished by a child, which dies in its answer to turn `killIn`. */
async function run(file, killIn = null) {
  const args = [self, '--model', values.model, '--turns', values.turns, '--file', file];
  if (values.template) args.push('--template', values.template);
  if (killIn !== null) args.push('--kill-in', String(killIn));
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => child.once('close', (code, signal) => resolve(signal ?? code)));
  const finished = [];
  for await (const line of createInterface({ input: child.stdout })) finished.push(JSON.parse(line));
  const end = await ended;
  if (end !== (killIn === null ? 0 : 'SIGKILL')) throw new Error(`chat-check: a child ended with ${end}.`);
  return finished;
}

async function main() {
  const folder = mkdtempSync(join(tmpdir(), 'mamba-chat-check-'));
  try {
    const unbroken = await run(join(folder, 'unbroken.session'));
    const file = join(folder, 'killed.session');
    const before = await run(file, Math.floor(turns / 2));
    const after = await run(file);
    const first = before.length;
    const whole = [...before, ...after];
    const same = JSON.stringify(whole) === JSON.stringify(unbroken);
    const tokens = unbroken.reduce((sum, turn) => sum + turn.tokens.length, 0);
    for (const { t, text } of whole)
      console.log(`${t < first ? 'before' : 'after '}  ${t + 1}  ${JSON.stringify(text)}`);
    console.log(
      `killed in answer ${Math.floor(turns / 2) + 1}, gone on from turn ${first + 1}: ` +
        `${turns} turns and ${tokens} tokens are ${same ? 'the same' : 'NOT the same'} as without a break.`,
    );
    return same ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (values.file) await talk(values.file);
else process.exitCode = await main();
