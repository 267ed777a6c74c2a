/** Saved states as files, for the commands that take --state-in and --state-out. */
import { fileSource, type LanguageModel, State, writeFileAtomic } from '../index.node.ts';

/** Null without a path. Throws StateError for the state of another model. */
export async function readState(path: string | undefined, model: LanguageModel): Promise<State | null> {
  if (path === undefined) return null;
  const source = await fileSource(path);
  try {
    return State.fromBytes(await source.read(0, source.sizeBytes), model);
  } finally {
    await source.close();
  }
}

export async function writeState(path: string | undefined, state: State): Promise<void> {
  if (path !== undefined) await writeFileAtomic(path, await state.toBytes());
}
