/** `mamba-ts train`: one command per task. */
import type { Command } from 'commander';
import { register as registerClassify } from './train-classify.ts';
import { register as registerLm } from './train-lm.ts';

export function register(program: Command): void {
  const train = program.command('train').description('Trains models.');
  registerLm(train);
  registerClassify(train);
}
