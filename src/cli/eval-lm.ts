/** `eval` of a language model: how well it predicts text. */
import { ConfigError, loadModel, openCorpus, openEnwik8 } from '../index.node.ts';
import { evaluate, liveLine } from '../train/index.ts';
import { type ModelOptions, modelOptions } from './options.ts';
import type { Output } from './output.ts';

interface Options extends ModelOptions {
  model: string;
  data: string[];
  textField: string;
  window: number;
  batch?: number;
  stream?: boolean;
}

export async function evaluateText(options: Options, out: Output): Promise<void> {
  const { data, textField, window, batch = 8, stream } = options;
  const model = await loadModel(options.model, modelOptions(options, out));
  const { tokenizer } = model;
  if (!tokenizer) {
    throw new ConfigError(
      `eval: expected a model with a tokenizer, got none in ${options.model}. Name one with --tokenizer.`,
    );
  }
  const sources = data.length === 1 && data[0] === 'enwik8' ? [(await openEnwik8()).test] : data;
  const tokens = await openCorpus(sources, { tokenizer, textField });
  const live = liveLine(out.io.stderr);
  const started = performance.now();
  const result = await evaluate(model, tokens, {
    window,
    batch,
    mode: stream ? 'stream' : 'windows',
    onProgress: (done, total) => live.show(`${((100 * done) / total).toFixed(0)} % of ${total} tokens`),
  }).finally(() => tokens.close());
  live.end();
  const tokensPerSecond = result.tokens / ((performance.now() - started) / 1000);
  const { bitsPerByte, bitsPerToken, perplexity } = result;
  if (bitsPerByte !== null) out.text(`bits per byte: ${bitsPerByte.toFixed(4)}\n`);
  out.text(`bits per token: ${bitsPerToken.toFixed(4)}, perplexity ${perplexity.toFixed(3)}\n`);
  out.text(`${result.tokens} tokens of ${tokens.name}, ${tokensPerSecond.toFixed(0)} tokens/s\n`);
  out.json({ ...result, data: tokens.name, window, tokensPerSecond });
}
