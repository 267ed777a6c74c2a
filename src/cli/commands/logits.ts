/** `mamba-ts logits`: the logits of given ids in a file, for checking against other implementations. */
import type { Command } from 'commander';
import { loadModel, noGrad, StateError, writeFileAtomic } from '../../index.node.ts';
import { safetensorsChunks } from '../../io/index.ts';
import { addCommonOptions, addModelOption, idRows, type ModelOptions, modelOptions } from '../options.ts';
import { outputOf } from '../output.ts';
import { readState, writeState } from '../state-file.ts';

interface Options extends ModelOptions {
  model: string;
  ids: number[][];
  out: string;
  stateIn?: string;
  stateOut?: string;
}

export function register(program: Command): void {
  const command = program
    .command('logits')
    .description(
      'Writes `logits` (b, l, v) as float32, v being the padded vocabulary, to a safetensors file.',
    );
  addCommonOptions(addModelOption(command))
    .requiredOption('--ids <rows>', 'rows of equal length: "1,2,3;4,5,6"', idRows)
    .requiredOption('--out <file>', 'the file to write')
    .option('--state-in <file>', 'continue from a saved state with as many rows')
    .option('--state-out <file>', 'save the state after the ids')
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const { ids } = options;
  if (ids.some((row) => row.length !== ids[0]!.length)) {
    command.error('error: expected --ids rows of equal length; run the others separately.');
  }
  const out = outputOf(command);
  const model = await loadModel(options.model, modelOptions(options, out));
  const state = await readState(options.stateIn, model);
  const result = noGrad(() => model.forward(ids, { state }));
  const { shape } = result.logits;
  const data = await result.logits.floats();
  if (!data.every(Number.isFinite)) {
    throw new StateError(
      'logits: expected finite logits, got NaN or infinity. The weights are damaged or have diverged.',
    );
  }
  const entry = { name: 'logits', dtype: 'F32', shape, data } as const;
  await writeFileAtomic(options.out, safetensorsChunks([entry]));
  await writeState(options.stateOut, result.state);
  out.text(`${options.out}: logits (${shape.join(', ')})\n`);
  out.json({ out: options.out, shape, stateOut: options.stateOut, stateTokens: result.state.tokens });
}
