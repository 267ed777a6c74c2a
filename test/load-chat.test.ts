/** The chat template travels with the model, and a saved conversation goes on after loading it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  byteTokenizer,
  ChatSession,
  convertModel,
  LanguageModel,
  loadModel,
  saveModel,
  tokenizerFromJson,
  trainBpe,
  writeGguf,
} from '../src/index.node.ts';
import { answerOf } from './generate/chat-model.ts';

const TEMPLATE = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}assistant:';
const OPTIONS = { maxTokens: 8, seed: 1 };
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-ts-chat-'));
});
afterAll(() => rm(folder, { recursive: true }));

function modelWith(tokenizer: LanguageModel['tokenizer'], template: string | null): LanguageModel {
  const config = { vocab_size: tokenizer!.vocabSize, d_model: 16, n_layer: 1, rms_norm: true };
  const model = new LanguageModel(config, { seed: 1 });
  model.tokenizer = tokenizer;
  model.chatTemplate = template;
  return model;
}

const { tokenizerJson, tokenizerConfig } = trainBpe(['user: assistant: hello '.repeat(9)], {
  vocabSize: 270,
});

it.each([
  ['bytes', byteTokenizer()],
  ['bpe', tokenizerFromJson(tokenizerJson, tokenizerConfig)],
])('to a folder and to GGUF, with %s', async (name, tokenizer) => {
  const path = (end: string) => join(folder, `${name}-${end}`);
  const model = modelWith(tokenizer, TEMPLATE);
  await saveModel(model, path('a'));
  await convertModel(path('a'), path('b'), { format: 'hf' });
  await convertModel(path('b'), path('c.gguf'), { format: 'gguf' });
  await convertModel(path('c.gguf'), path('d'), { format: 'hf' });
  await writeGguf(model, path('e.gguf'));
  const session = model.startChat(OPTIONS);
  await answerOf(session.send('hello'));
  const saved = await session.toBytes();
  const expected = await answerOf(session.send('again'));
  for (const end of ['a', 'b', 'c.gguf', 'd', 'e.gguf']) {
    const loaded = await loadModel(path(end));
    expect(loaded.chatTemplate, end).toBe(TEMPLATE);
    const later = ChatSession.fromBytes(saved, loaded);
    const { tokens } = await answerOf(later.send('again'));
    // GGUF stores -exp(A_log), so that its logits agree but for rounding.
    if (!end.endsWith('.gguf') && end !== 'd') expect(tokens).toEqual(expected.tokens);
    later.dispose();
    loaded.dispose();
  }
});

it('and is null without one, whatever stood there before', async () => {
  const path = join(folder, 'plain');
  await saveModel(modelWith(byteTokenizer(), TEMPLATE), path);
  await saveModel(modelWith(byteTokenizer(), null), path);
  expect((await loadModel(path)).chatTemplate).toBe(null);
});
