/** Labelled texts that a tiny classifier can learn, for tests of training. */
import { Rng } from '../../src/base/rng.ts';

const WORDS = {
  sea: ['whale', 'ship', 'harbour', 'sail', 'wave'],
  land: ['meadow', 'horse', 'plough', 'barn', 'wheat'],
} as const;
const SHARED = ['the', 'and', 'near', 'old', 'sees', 'a'];

/** `count` texts, every third of them of the land. */
export function toyExamples(count: number, seed = 4): { text: string; label: keyof typeof WORDS }[] {
  const rng = new Rng(seed);
  return Array.from({ length: count }, (_, i) => {
    const label = i % 3 === 2 ? 'land' : 'sea';
    const words = Array.from({ length: 3 + rng.below(9) }, () => {
      const from = rng.float() < 0.4 ? WORDS[label] : SHARED;
      return from[rng.below(from.length)]!;
    });
    return { text: `${words.join(' ')} ${WORDS[label][rng.below(5)]}`, label };
  });
}

export function toyJsonLines(count: number, seed = 4): string {
  return toyExamples(count, seed)
    .map((example) => `${JSON.stringify(example)}\n`)
    .join('');
}
