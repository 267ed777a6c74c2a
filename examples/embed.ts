/**
 * Sentences as vectors, and how alike they are. With a model folder, file or hub id it embeds with that model; without one it first
 * trains a tiny model of bytes on these very sentences, in seconds.
 *
 *     node examples/embed.ts [model]        (Node 22.18 or later runs TypeScript as it is)
 *
 * What to expect: a language model learns to predict the next token, not to put like meanings next to each other. Its vectors all share a
 * large common part, so every raw cosine is near 1; subtracting the mean of the set, as below, makes differences visible. Sentences then
 * come out as alike when their words are. For search, a model trained on pairs of texts is far better; for a first clustering, finding
 * near-duplicates, or as features for a classifier, these are worth trying. The tiny model knows spelling and nothing else.
 */
import { byteTokenizer, cosineSimilarity, LanguageModel, loadModel, scope, Tensor } from 'mamba-ts';
import { AdamW } from 'mamba-ts/train';

const SENTENCES = [
  'The ship left the harbour in the morning.',
  'In the morning the ship sailed from the harbour.',
  'A storm broke the mast of the ship.',
  'Add two eggs and a cup of flour.',
  'Stir the flour and the eggs in a bowl.',
  'Bake the bread until the crust is brown.',
  'The knight takes the bishop on move twelve.',
  'White moves the bishop and takes the knight.',
];

/** Mean loss of the last step, in bits per byte. */
async function teach(model: LanguageModel, steps: number): Promise<number> {
  const optimizer = new AdamW(model.namedParameters());
  const rows = SENTENCES.map((sentence) => [...new TextEncoder().encode(sentence)]);
  const length = Math.max(...rows.map((row) => row.length)) - 1;
  const targets = new Int32Array(rows.length * length).fill(-100); // -100 does not count
  for (const [i, row] of rows.entries()) targets.set(row.slice(1), i * length);
  let last = 0;
  for (let step = 0; step < steps; step++) {
    const loss = scope(() => {
      const inputs = rows.map((row) => row.slice(0, -1));
      const { loss } = model.loss(inputs, Tensor.from(targets, [rows.length, length]));
      loss.backward();
      optimizer.step(5e-3);
      return loss.detach();
    });
    last = (await loss.item()) / Math.LN2;
    loss.dispose();
  }
  return last;
}

async function tinyModel(): Promise<LanguageModel> {
  const model = new LanguageModel({ d_model: 48, n_layer: 2, vocab_size: 256 }, { seed: 1 });
  model.tokenizer = byteTokenizer();
  console.log(`a tiny model, after 60 steps: ${(await teach(model, 60)).toFixed(2)} bits per byte\n`);
  return model;
}

/** Without what all have in common. */
function centered(vectors: readonly Float32Array[]): Float32Array[] {
  const mean = vectors[0]!.map(
    (_, j) => vectors.reduce((sum, vector) => sum + vector[j]!, 0) / vectors.length,
  );
  return vectors.map((vector) => vector.map((x, j) => x - mean[j]!));
}

function printTable(title: string, vectors: readonly Float32Array[]): void {
  console.log(title);
  for (const [i, a] of vectors.entries()) {
    const row = vectors.map((b) => cosineSimilarity(a, b).toFixed(2).padStart(6)).join('');
    console.log(`${i + 1}${row}  ${SENTENCES[i]}`);
  }
  console.log();
}

const [path] = process.argv.slice(2);
const model = path === undefined ? await tinyModel() : await loadModel(path);
const vectors = await model.embed(SENTENCES, { pooling: 'mean' });
printTable('cosine similarity', vectors);
printTable('cosine similarity, the mean of all subtracted', centered(vectors));
