/** `mamba-ts convert`: a model in another file format. */
import { type Command, Option } from 'commander';
import { convertModel, MODEL_FORMATS, type ModelFormat } from '../../index.node.ts';
import { type FetchOptions, fetching } from '../fetching.ts';
import { addCommonOptions, addSourceOption } from '../options.ts';
import { outputOf } from '../output.ts';

interface Options extends FetchOptions {
  model: string;
  format: ModelFormat;
  out: string;
  weights: string;
}

const FOLDER_WEIGHTS = ['f32', 'bf16', 'f16'];
const GGUF_WEIGHTS = [...FOLDER_WEIGHTS, 'q8_0', 'q4_0', 'q8', 'q4'];

export function register(program: Command): void {
  const command = program
    .command('convert')
    .description(
      'Writes a model as a folder in the layout of another program, or as a GGUF file for llama.cpp.',
    );
  addCommonOptions(addSourceOption(command))
    .addOption(
      new Option(
        '--format <name>',
        'hf: Hugging Face; original: state-spaces/mamba, with pytorch_model.bin; codestral: params.json; gguf: llama.cpp',
      )
        .choices(MODEL_FORMATS)
        .makeOptionMandatory(),
    )
    .requiredOption('--out <path>', 'the folder to write, or for gguf the file')
    .addOption(
      new Option('--weights <type>', 'f32, bf16, f16; gguf: also q8_0 (q8), q4_0 (q4)')
        .choices(GGUF_WEIGHTS)
        .default('f32'),
    )
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const { model, format, out: path, weights } = options;
  if (format !== 'gguf' && !FOLDER_WEIGHTS.includes(weights)) {
    command.error(`error: expected --weights ${FOLDER_WEIGHTS.join(', ')} for --format ${format}.`);
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
