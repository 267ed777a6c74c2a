/** `mamba-ts embed`: texts as vectors. */
import { type Command, Option } from 'commander';
import { loadModel, type Pooling, writeFileAtomic } from '../../index.node.ts';
import { safetensorsChunks } from '../../io/index.ts';
import {
  addCommonOptions,
  addModelOption,
  collect,
  integer,
  type ModelOptions,
  modelOptions,
} from '../options.ts';
import { outputOf } from '../output.ts';
import { readTexts } from '../text-file.ts';

interface Options extends ModelOptions {
  model: string;
  text?: string[];
  data?: string;
  pooling: Pooling;
  normalize?: boolean;
  batchSize: number;
  out?: string;
}

export function register(program: Command): void {
  const command = program
    .command('embed')
    .description(
      'Vectors (d_model) of texts: their hidden states after the final norm, pooled over the tokens.',
    );
  addCommonOptions(addModelOption(command))
    .option('--text <text>', 'a text; may be repeated', collect)
    .option('--data <file>', 'texts, one per line, or JSONL with "text"; empty lines do not count')
    .addOption(
      new Option('--pooling <name>', 'of all tokens, or the last one')
        .choices(['mean', 'last'])
        .default('mean'),
    )
    .option('--normalize', 'scale each vector to length 1')
    .option('--batch-size <n>', 'texts read together', integer(1), 16)
    .option(
      '--out <file>',
      '.safetensors: `embeddings` (n, d); .jsonl: a line per text (default: such lines on stdout)',
    )
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const { text = [], data, pooling, normalize, batchSize, out: path } = options;
  if (text.length === 0 && data === undefined)
    command.error('error: expected --text or --data, got neither.');
  if (path !== undefined && !/\.(safetensors|jsonl)$/.test(path))
    command.error(`error: expected --out to end in .safetensors or .jsonl, got ${path}.`);
  const out = outputOf(command);
  const texts = data === undefined ? text : [...text, ...(await readTexts(data, 'text'))];
  const model = await loadModel(options.model, modelOptions(options, out));
  const started = performance.now();
  const vectors = await model.embed(texts, { pooling, normalize, batchSize });
  const seconds = (performance.now() - started) / 1000;
  const lines = () =>
    vectors.map((vector, i) => `${JSON.stringify({ text: texts[i], embedding: [...vector] })}\n`);
  const shape = [vectors.length, model.config.d_model];
  if (path?.endsWith('.safetensors')) {
    const all = new Float32Array(shape[0]! * shape[1]!);
    for (const [i, vector] of vectors.entries()) all.set(vector, i * shape[1]!);
    await writeFileAtomic(path, safetensorsChunks([{ name: 'embeddings', dtype: 'F32', shape, data: all }]));
  } else if (path !== undefined) await writeFileAtomic(path, lines().join(''));
  out.text(path === undefined ? lines().join('') : `${path}: embeddings (${shape.join(', ')})\n`);
  out.log(`${vectors.length} texts, ${seconds.toFixed(1)} s`);
  const embeddings = path === undefined ? vectors.map((vector) => [...vector]) : undefined;
  out.json({ shape, pooling, normalize: normalize === true, out: path, embeddings, seconds });
}
