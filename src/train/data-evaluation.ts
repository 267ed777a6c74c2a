/** Reading held-out tokens once from beginning to end, and counting the text they stand for. */
import type { Tokenizer } from '../base/tokenizer.ts';
import type { ModelConfig } from '../models/config.ts';
import { type Batch, emptyBatch, fillRow } from './data-batches.ts';
import { checkWindow, type TokenData } from './data-tokens.ts';

/**
 * Windows side by side, each from a zero state. Every token but the first is a target exactly once (except at
 * document borders, where it is ignored). The last batch may have fewer rows; its last row is padded with
 * ignored targets. Throws ConfigError for fewer than two tokens. `length` defaults to 1024.
 */
export async function* evaluationWindows(
  tokens: TokenData,
  { batch = 8, length = 1024 }: { batch?: number; length?: number } = {},
): AsyncGenerator<Batch> {
  checkWindow('evaluationWindows', tokens, 1, batch);
  checkWindow('evaluationWindows', tokens, Math.min(length, tokens.length - 1));
  const targets = tokens.length - 1;
  const columns = Math.min(length, targets);
  const rows = Math.ceil(targets / columns);
  for (let first = 0; first < rows; first += batch) {
    const out = emptyBatch(tokens, Math.min(batch, rows - first), columns);
    for (let row = 0; row < out.batch; row++) {
      const start = (first + row) * columns;
      await fillRow(out, row, tokens, start, Math.min(columns, targets - start));
    }
    yield out;
  }
}

/** Tokens that a carried state may hold of a model with attention layers, where it grows with each. */
export const ATTENTION_CONTEXT = 4096;

/** Tokens after which a carried state starts anew: never, where it has a constant size. */
export function carriedTokens({ attn_cfg }: Pick<ModelConfig, 'attn_cfg'>): number {
  return attn_cfg ? ATTENTION_CONTEXT : Number.POSITIVE_INFINITY;
}

/**
 * The tokens as one stream, batch 1, in pieces of at most `length` (default 1024) with the state carried from
 * piece to piece; `resets` is true for the first piece, where a document begins, and where the state would
 * hold more than `carried` tokens (default: never). Targets as in evaluationWindows.
 */
export async function* evaluationStream(
  tokens: TokenData,
  { length = 1024, carried = Number.POSITIVE_INFINITY }: { length?: number; carried?: number } = {},
): AsyncGenerator<Batch> {
  checkWindow('evaluationStream', tokens, 1);
  checkWindow('evaluationStream', tokens, Math.min(length, tokens.length - 1));
  const targets = tokens.length - 1;
  let held = 0;
  for (let start = 0; start < targets; start += length) {
    const out = emptyBatch(tokens, 1, Math.min(length, targets - start));
    await fillRow(out, 0, tokens, start);
    const begins = tokens.severalDocuments && (await tokens.documentStarts(start, start + 1)).length > 0;
    const resets = start === 0 || begins || held + out.length > carried;
    held = (resets ? 0 : held) + out.length;
    yield { ...out, resets: [resets] };
  }
}

const PIECE = 1 << 16;

/**
 * UTF-8 bytes of the text that the targets of an evaluation stand for: bits per byte = nats / ln 2 / this.
 * The first token of each document is nobody's target and does not count, nor does the end-of-text id.
 */
export async function targetTextBytes(tokens: TokenData, tokenizer: Tokenizer): Promise<number> {
  const decoder = tokenizer.streamDecoder();
  const encoder = new TextEncoder();
  let total = 0;
  for (let start = 0; start < tokens.length; start += PIECE) {
    const end = Math.min(start + PIECE, tokens.length);
    const ids = await tokens.read(start, end);
    const borders = new Set(tokens.severalDocuments ? await tokens.documentStarts(start, end) : []);
    if (start === 0) borders.add(0);
    if (tokenizer.kind === 'bytes') {
      total += ids.length - borders.size;
      continue;
    }
    ids.forEach((id, i) => {
      if (id === tokenizer.eosId) {
        total += encoder.encode(decoder.flush()).length;
        return;
      }
      const bytes = encoder.encode(decoder.push(id)).length;
      if (!borders.has(start + i)) total += bytes;
    });
  }
  return total + encoder.encode(decoder.flush()).length;
}
