/** `mamba-ts quantize`: a model in fewer bits per weight, and what that costs on a text. */
import { type Command, Option } from 'commander';
import { type QuantizeOptions, quantizeModel, type WeightSize } from '../../index.node.ts';
import { type FetchOptions, fetching } from '../fetching.ts';
import { addCommonOptions, addSourceOption } from '../options.ts';
import { outputOf } from '../output.ts';

interface Options extends FetchOptions, Pick<QuantizeOptions, 'device' | 'data' | 'textField'> {
  model: string;
  out: string;
  weights: NonNullable<QuantizeOptions['weights']>;
}

const PROGRESS_MS = 2000;

export function register(program: Command): void {
  const command = program
    .command('quantize')
    .description(
      'Writes a model as a GGUF file with fewer bits per weight; --data measures what that costs.',
    );
  addCommonOptions(addSourceOption(command))
    .requiredOption('--out <file>', 'the .gguf file to write')
    .addOption(
      new Option('--weights <type>', 'type of the matrices; with q4 the head keeps eight bits')
        .choices(['q8', 'q4', 'f16', 'bf16'])
        .default('q8'),
    )
    .option('--data <path...>', 'files, folders or globs (text, .jsonl) that both models read')
    .option('--text-field <name>', 'field of a JSONL line that holds the text', 'text')
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const out = outputOf(command);
  const { model, out: path, weights, data, textField, device } = options;
  let shown = performance.now();
  const result = await quantizeModel(model, path, {
    weights,
    data,
    textField,
    device,
    ...fetching(out, options),
    onCompare(which, done, total) {
      if (performance.now() - shown < PROGRESS_MS) return;
      shown = performance.now();
      out.log(`${which}: ${((100 * done) / total).toFixed(0)} % of ${total} tokens`);
    },
  });
  for (const note of result.notes) out.log(`note: ${note}`);
  const size = ({ bytes, bitsPerWeight }: WeightSize) =>
    `${(bytes / 1e6).toFixed(1)} MB, ${bitsPerWeight.toFixed(2)} bits per weight`;
  out.text(`source: ${size(result.source)}\n${path}: ${size(result.result)}\n`);
  const { comparison } = result;
  if (comparison) {
    const { source, result: after, agreement, tokens } = comparison;
    out.text(`perplexity ${source.perplexity.toFixed(4)} -> ${after.perplexity.toFixed(4)}, `);
    out.text(`bits per token ${source.bitsPerToken.toFixed(4)} -> ${after.bitsPerToken.toFixed(4)}\n`);
    out.text(`same likeliest token at ${(100 * agreement).toFixed(2)} % of ${tokens} positions\n`);
  }
  const { path: _path, ...rest } = result;
  out.json({ out: path, ...rest });
}
