/** A model of random weights whose tokens are characters, so that text and tokens say the same everywhere. */
import { CHAT_TEMPLATES, type ChatPart, LanguageModel } from '../../src/index.node.ts';
import type { Tokenizer } from '../../src/text/index.ts';

const CHARS = [...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)), '\n'];
export const EOS = '</s>';
const EOS_ID = CHARS.length;

/** Printable ASCII and line breaks are 96 ids; `</s>` is one of its own. */
export const charTokenizer: Tokenizer = {
  kind: 'json',
  vocabSize: EOS_ID + 1,
  eosId: EOS_ID,
  specialTokens: { eos_token: EOS },
  encode: (text) =>
    text.split(/(<\/s>)/).flatMap((part) =>
      part === EOS
        ? [EOS_ID]
        : [...part].map((char) => {
            const id = CHARS.indexOf(char);
            if (id < 0) throw new Error(`no token for ${JSON.stringify(char)}`);
            return id;
          }),
    ),
  decode: (ids) => ids.map((id) => (id === EOS_ID ? EOS : CHARS[id]!)).join(''),
  streamDecoder: () => ({ push: (id) => (id === EOS_ID ? EOS : CHARS[id]!), flush: () => '' }),
  toFiles: () => ({}),
};

/** The same `seed` gives the same weights. They are wide, so that what it says depends on what it has read. */
export async function charModel(seed = 1): Promise<LanguageModel> {
  const config = { vocab_size: EOS_ID + 1, d_model: 16, n_layer: 2, d_state: 4, tie_embeddings: false };
  const model = new LanguageModel(config, { seed }).requireGrad(false);
  for (const [name, tensor] of model.namedParameters()) {
    if (tensor.shape.length !== 2 || name.endsWith('A_log')) continue;
    const factor = name.startsWith('lm_head') ? 6 : 3;
    tensor.write((await tensor.floats()).map((x) => factor * x));
  }
  await model.refreshFingerprint();
  model.tokenizer = charTokenizer;
  model.chatTemplate = CHAT_TEMPLATES.zephyr;
  return model;
}

/** A likely end, so that greedy answers are of many lengths. */
export const GREEDY = { temperature: 0, maxTokens: 12, logitBias: { [EOS_ID]: 3 } } as const;

/** All parts of an answer as one: its text, tokens and how it ended. */
export async function answerOf(parts: AsyncIterable<ChatPart>): Promise<ChatPart> {
  const all: ChatPart = { text: '', tokens: [], logprobs: null, finishReason: null, message: null };
  for await (const part of parts) {
    all.text += part.text;
    all.tokens.push(...part.tokens);
    all.finishReason = part.finishReason;
    all.message = part.message;
  }
  return all;
}
