/** The layer rule as data: what each folder of src/ may import besides itself. docs/architecture.md explains it. */

/** A folder name allows the whole folder, a path with a dot that one file. */
export const LAYERS = {
  base: [],
  backend: ['base'],
  tensor: ['base', 'backend/backend.ts', 'backend/kernels.ts'],
  ops: ['base', 'tensor', 'backend/backend.ts', 'backend/kernels.ts'],
  nn: ['base', 'tensor', 'ops'],
  models: ['base', 'tensor', 'ops', 'nn'],
  text: ['base'],
  io: ['base', 'tensor', 'nn', 'models/config.ts', 'models/classifier-config.ts'],
  predict: ['base', 'tensor', 'ops', 'text', 'models'],
  train: ['base', 'tensor', 'ops', 'nn', 'models', 'io', 'text', 'predict'],
  generate: ['base', 'tensor', 'text', 'models'],
  bench: ['base', 'backend', 'tensor', 'models', 'io', 'generate', 'train', 'version.ts'],
  server: ['base', 'generate', 'text', 'models'],
  cli: [],
};

/** Folders that use the library only through its entry points, like any other program. */
export const OUTSIDE = ['src/cli', 'bench', 'examples', 'runs', 'web', 'test/package', 'test/docs'];

/** Files that may use `node:` modules; nothing else may import them. */
export function isNodeOnly(path) {
  return (
    /\.node\.ts$/.test(path) ||
    path.startsWith('src/cli/') ||
    ['src/backend/native.ts', 'src/io/file.ts', 'src/server/node.ts'].includes(path)
  );
}

/** The source files behind `exports` of package.json: dist/x.js is src/x.ts. */
export function entryPoints(packageJson) {
  const found = new Set();
  const visit = (value) => {
    if (typeof value === 'string' && /^\.\/dist\/.*\.js$/.test(value)) {
      found.add(value.replace(/^\.\/dist\//, 'src/').replace(/\.js$/, '.ts'));
    } else if (value && typeof value === 'object') Object.values(value).forEach(visit);
  };
  visit(packageJson.exports);
  return found;
}

export function mayImport(from, to) {
  const [layer] = from.split('/');
  if (to.startsWith(`${layer}/`)) return true;
  return (LAYERS[layer] ?? []).some((allowed) =>
    allowed.includes('.') ? to === allowed : to.startsWith(`${allowed}/`),
  );
}
