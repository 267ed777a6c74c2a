/** `mamba-ts convert`: a model in another file format. */
import { type Command, Option } from 'commander';
import { convertModel } from '../../index.node.ts';
import { type FetchOptions, fetching } from '../fetching.ts';
import { addCommonOptions, addSourceOption } from '../options.ts';
import { outputOf } from '../output.ts';

interface Options extends FetchOptions {
  model: string;
  format: 'hf' | 'gguf';
  out: string;
  weights: string;
}

const HF_WEIGHTS = ['f32', 'bf16', 'f16'];
const GGUF_WEIGHTS = [...HF_WEIGHTS, 'q8_0', 'q4_0', 'q8', 'q4'];

export function register(program: Command): void {
  const command = program
    .command('convert')
    .description('Writes a model as a Hugging Face folder, or as a GGUF file that llama.cpp runs.');
  addCommonOptions(addSourceOption(command))
    .addOption(new Option('--format <name>', 'what to write').choices(['hf', 'gguf']).makeOptionMandatory())
    .requiredOption('--out <path>', 'the folder (hf) or file (gguf) to write')
    .addOption(
      new Option('--weights <type>', 'hf: f32, bf16, f16; gguf: these and q8_0 (q8), q4_0 (q4)')
        .choices(GGUF_WEIGHTS)
        .default('f32'),
    )
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const { model, format, out: path, weights } = options;
  if (format === 'hf' && !HF_WEIGHTS.includes(weights)) {
    command.error(`error: expected --weights ${HF_WEIGHTS.join(', ')} for --format hf.`);
  }
  const out = outputOf(command);
  const { weightBytes, notes } = await convertModel(model, path, {
    format,
    weights,
    ...fetching(out, options),
  });
  for (const note of notes) out.log(`note: ${note}`);
  out.text(`${path}: ${weightBytes} bytes of weights, ${weights}\n`);
  out.json({ out: path, format, weights, weightBytes, notes });
}
