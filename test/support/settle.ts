/**
 * Collects what earlier tests dropped without disposing of it, and lets the finalizers return that memory, so that a test which counts live
 * bytes sees its own changes alone.
 */
import { setTimeout } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

export async function settle(): Promise<void> {
  for (let round = 0; round < 2; round++) {
    collect();
    await setTimeout(0); // finalizers run as tasks of their own
  }
}
