/**
 * Conversations as batches for `train`: every row is an endless stream of conversations, cut into windows and read on with the state in
 * which it ended, so a conversation may be longer than a window. Only what the assistant says counts in the loss.
 */
import { readFileSync } from 'node:fs';
import { byteTokenizer, chatTemplate, Rng } from '../dist/index.node.js';
import { IGNORE_INDEX } from '../dist/train/index.js';
import { conversation } from './_dialogues.mjs';

/** Turns of a conversation: mostly short, at most this many. */
const MOST_TURNS = 24;

/** Jinja: the text that the model is taught to read as a conversation, and that goes with it to disk. */
export const TEMPLATE = readFileSync(new URL('./chat-demo.jinja', import.meta.url), 'utf8');
const template = chatTemplate(TEMPLATE, {});
const tokenizer = byteTokenizer();

/** What the template makes of a turn, as ids: the question up to where the answer begins, and the answer with its end. */
function encodeTurn({ user, assistant }) {
  const messages = [
    { role: 'user', content: user },
    { role: 'assistant', content: assistant },
  ];
  const asked = template.render(messages.slice(0, 1), { addGenerationPrompt: true });
  const whole = template.render(messages, { addGenerationPrompt: false });
  return { asked: tokenizer.encode(asked), answered: tokenizer.encode(whole.slice(asked.length)) };
}

/** One row: pulls (token, counts, starts) triples from one conversation after another. */
function rowOf(rng) {
  const waiting = [];
  return {
    pull() {
      if (waiting.length === 0) {
        const next = conversation(rng);
        const turns = 1 + Math.floor(MOST_TURNS * rng.float() ** 2);
        for (let i = 0; i < turns; i++) {
          const { asked, answered } = encodeTurn(next());
          for (const id of asked) waiting.push({ id, counts: false, starts: false });
          for (const id of answered) waiting.push({ id, counts: true, starts: false });
        }
        waiting[0].starts = true;
        waiting.reverse();
      }
      return waiting.pop();
    },
  };
}

/** A BatchStream, see `mamba-ts/train`. A run over it does not resume. */
export function chatBatches({ batch, length, seed }) {
  const rng = new Rng(seed);
  const rows = Array.from({ length: batch }, (_, row) => rowOf(rng.fork(`row ${row}`)));
  const pending = rows.map((row) => row.pull());
  const position = () => ({ kind: 'conversations', data: `seed ${seed}`, batch, length, position: [] });
  return {
    async next() {
      const inputs = new Int32Array(batch * length);
      const targets = new Int32Array(batch * length).fill(IGNORE_INDEX);
      const sequenceIds = new Int32Array(batch * length);
      const resets = rows.map((_, row) => pending[row].starts);
      for (const [row, { pull }] of rows.entries()) {
        let document = 0;
        for (let t = 0; t < length; t++) {
          const at = row * length + t;
          if (pending[row].starts && t > 0) document++;
          inputs[at] = pending[row].id;
          sequenceIds[at] = document;
          pending[row] = pull();
          if (!pending[row].starts && pending[row].counts) targets[at] = pending[row].id;
        }
      }
      return { batch, length, inputs, targets, sequenceIds, resets };
    },
    state: position,
    restore() {
      throw new Error('chatBatches: a run over conversations does not resume.');
    },
  };
}
