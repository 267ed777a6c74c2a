/**
 * Several completions of the command `generate`: of many prompts, or samples of one; and
 * log-probabilities as lines of text.
 */
import type {
  BatchOptions,
  Completion,
  LanguageModel,
  Prompt,
  State,
  Tokenizer,
  TokenLogprob,
} from '../index.node.ts';
import { completions } from '../index.node.ts';
import type { Output } from './output.ts';

/** `names` are the prompts as text; `state` has one row per prompt, or one for all. */
export async function printCompletions(
  model: LanguageModel,
  prompts: readonly Prompt[],
  names: readonly string[],
  { state = null, ...options }: BatchOptions,
  out: Output,
): Promise<void> {
  const { n = 1 } = options;
  const started = performance.now();
  const all: Completion[] = [];
  const start = state && rowsFor(state, prompts.length);
  for await (const one of completions(model, prompts, { ...options, state: start })) {
    all.push(one);
    const sample = n > 1 ? `, sample ${one.sample + 1}` : '';
    out.text(`--- prompt ${one.row + 1}${sample} (seed ${one.seed}, ${one.finishReason})\n${one.text}\n`);
    if (one.logprobs) out.text(logprobLines(one.logprobs, model.tokenizer));
  }
  const seconds = (performance.now() - started) / 1000;
  const tokens = all.reduce((sum, one) => sum + one.tokens.length, 0);
  const tokensPerSecond = tokens / seconds;
  const count = `${tokens} tokens${options.echo ? ' with the prompts' : ''}`;
  out.log(`${all.length} completions, ${count}, ${tokensPerSecond.toFixed(1)} tokens/s`);
  all.sort((a, b) => a.row - b.row || a.sample - b.sample);
  const shown = all.map((one) => ({ prompt: names[one.row], ...one }));
  out.json({ completions: shown, seconds, tokensPerSecond });
}

function rowsFor(state: State, count: number): State {
  return state.batch === 1 && count > 1 ? state.rows(new Array<number>(count).fill(0)) : state;
}

/** A line per token: itself, its log-probability, and the likeliest ones. */
export function logprobLines(
  logprobs: readonly (TokenLogprob | null)[],
  tokenizer: Tokenizer | null,
): string {
  const show = (token: number) => (tokenizer ? JSON.stringify(tokenizer.decode([token])) : String(token));
  const entry = ({ token, logprob }: { token: number; logprob: number }) =>
    `${show(token)} ${logprob.toFixed(4)}`;
  return logprobs
    .flatMap((one) =>
      one ? [`  ${entry(one)}${one.top.map((other) => `  | ${entry(other)}`).join('')}\n`] : [],
    )
    .join('');
}
