/** How fast a model reads a prompt and writes tokens, in tokens per second. */
import { noGrad } from '../dist/index.node.js';

/** One letter a token where bytes are the tokens, another text in every round. */
export function promptText(round, count) {
  return String.fromCharCode(...Array.from({ length: count }, (_, i) => 97 + ((i * 7919 + round + 1) % 26)));
}

export async function measureRound(model, round, prompt, generate) {
  const ids = Array.from(new TextEncoder().encode(promptText(round, prompt)));
  let start = performance.now();
  const first = noGrad(() => model.forward([ids], { lastOnly: true }));
  await first.logits.floats();
  first.logits.dispose();
  const prefill = (1000 * prompt) / (performance.now() - start);
  let { state } = first;
  start = performance.now();
  for (let i = 0; i < generate; i++) {
    const next = noGrad(() => model.step([5 + i], state));
    await next.logits.floats();
    next.logits.dispose();
    state.dispose();
    ({ state } = next);
  }
  const decode = (1000 * generate) / (performance.now() - start);
  state.dispose();
  return { prefill, decode };
}
