/**
 * A spam filter from 160 mails, in seconds: it is trained and measured, answers, reads a mail while it arrives, and says which words
 * decided.
 *
 *     node examples/classify.ts        (in the root of the repository; Node 22.18 or later runs TypeScript as it is)
 *
 * What to expect: so few mails are a case for the baselines, which count words; the table says how they do. With thousands of mails it is
 * level with the better one (docs/results.md). The classifier stays in out/mails: `npx mamba-ts predict --model out/mails "some text"`.
 */
import { loadClassifier, trainClassify } from 'mamba-ts';
import { scoresTable, verdict } from 'mamba-ts/train';

const FOLDER = 'out/mails';

async function train(): Promise<void> {
  const { model, settings, test, baselines, elapsedSeconds } = await trainClassify({
    out: FOLDER,
    start: 'replace',
    settings: { data: ['examples/data/mails.jsonl'], test: ['examples/data/mails-test.jsonl'] },
    onProgress(event) {
      if (event.kind !== 'metrics' || !event.metrics.validation) return;
      const { step, loss, validation } = event.metrics;
      console.log(
        `step ${step}: loss ${loss.toFixed(3)}, held-out accuracy ${validation.accuracy.toFixed(3)}`,
      );
    },
  });
  const { scores } = test!; // there are test texts, and nothing interrupts
  const rows = [{ name: `Mamba, ${settings.preset}`, scores, seconds: elapsedSeconds }, ...baselines];
  console.log(`\n${scoresTable(rows, `${scores.examples} other mails`)}`);
  for (const sentence of verdict(scores, baselines)) console.log(sentence);
  model.dispose();
}

await train();
const classifier = await loadClassifier(FOLDER);

console.log('\nanswers');
const texts = [
  'Your opportunity!\nMake $5000 a week from your home. It is FREE, there is nothing to sell. Order today!',
  'Problem with the network card\nHi all, I upgraded the kernel and now the module does not load. Any ideas?',
];
for (const [i, { label, score }] of (await classifier.predict(texts)).entries())
  console.log(`${label} ${score.toFixed(4)}  ${texts[i]!.split('\n')[0]}`);

console.log('\na mail while it arrives');
const pieces = [
  'Linux meeting on Thursday\nHi all, the next meeting of the list is on Thursday at seven. ',
  'Bring a laptop if you want help with your install. ',
  'And by the way: I earn $5000 a week from home with this FREE program! ',
  'No selling, no risk, 100% guaranteed income! Click here and order your free report today!!!',
];
const reader = classifier.open();
for (const piece of pieces) {
  await reader.push(piece);
  const { scores } = await reader.answer();
  console.log(`${reader.tokens} tokens: spam ${scores.spam!.toFixed(4)}`);
}
reader.dispose();
const [whole] = await classifier.predict([pieces.join('')]);
console.log(`read at once: spam ${whole!.scores.spam!.toFixed(4)}`);

console.log('\nwhat decided, token by token');
const [{ explained, tokens } = { explained: '', tokens: [] }] = await classifier.explain([texts[0]!]);
const strongest = [...tokens].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, 8);
for (const { text, weight } of strongest)
  console.log(
    `${weight >= 0 ? 'for' : 'against'} ${explained}  ${JSON.stringify(text)}  ${weight.toFixed(3)}`,
  );
classifier.dispose();
