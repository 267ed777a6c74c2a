import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmod,
  link,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FormatError } from '../../src/base/errors.ts';
import {
  FileError,
  fileSource,
  readJson,
  readText,
  readTextIfPresent,
  writeFileAtomic,
} from '../../src/io/file.ts';
import { bundleChild } from './save-child.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-file-'));
});
afterEach(() => rm(folder, { recursive: true }));

/** A process id that was just in use and is free now. */
function deadProcess(): number {
  return spawnSync(process.execPath, ['-e', '']).pid;
}

describe('fileSource', () => {
  test('reads ranges', async () => {
    await writeFile(join(folder, 'a'), 'hello world');
    const source = await fileSource(join(folder, 'a'));
    expect(source.sizeBytes).toBe(11);
    expect(new TextDecoder().decode(await source.read(6, 11))).toBe('world');
    expect(await source.read(11, 11)).toEqual(new Uint8Array(0));
    for (const [start, end] of [
      [0, 12],
      [-1, 3],
      [5, 4],
      [Number.NaN, 3],
    ] as const) {
      await expect(source.read(start, end)).rejects.toThrow(FormatError);
    }
    await source.close();
  });

  test('reads the end of a 10 GB file without reading the rest', async () => {
    const path = join(folder, 'huge');
    const file = await open(path, 'w'); // sparse: takes no space
    await file.write(Uint8Array.of(1, 2, 3), 0, 3, 10_000_000_000);
    await file.close();
    const source = await fileSource(path);
    expect(source.sizeBytes).toBe(10_000_000_003);
    expect(await source.read(10_000_000_000, 10_000_000_003)).toEqual(Uint8Array.of(1, 2, 3));
    await source.close();
  });

  test('a file cut after it was opened', async () => {
    await writeFile(join(folder, 'a'), 'hello world');
    const source = await fileSource(join(folder, 'a'));
    await truncate(join(folder, 'a'), 4);
    await expect(source.read(2, 11)).rejects.toThrow('got the end at 4. It was cut.');
    await source.close();
  });
});

describe('paths that are no readable file', () => {
  const readers = { fileSource, readText, readJson };
  for (const [name, read] of Object.entries(readers)) {
    test(name, async () => {
      await writeFile(join(folder, 'file'), 'x');
      const cases = [
        [join(folder, 'missing'), 'got nothing at this path'],
        [folder, 'got a folder. Give the path of a file.'],
        [join(folder, 'file', 'x'), 'got a path that leads through a file'],
      ] as const;
      for (const [path, message] of cases) {
        await expect(read(path)).rejects.toThrow(FileError);
        await expect(read(path)).rejects.toThrow(message);
        await expect(read(path)).rejects.toThrow(path);
      }
    });
  }

  test.skipIf(process.platform === 'win32')('a pipe that nobody writes to', async () => {
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    await expect(fileSource(pipe)).rejects.toThrow('got a device or pipe');
  });

  test.skipIf(process.platform === 'win32' || process.getuid?.() === 0)('no permission', async () => {
    await writeFile(join(folder, 'secret'), 'x');
    await chmod(join(folder, 'secret'), 0);
    await expect(readText(join(folder, 'secret'))).rejects.toThrow('got no permission');
    await chmod(folder, 0o500);
    await expect(writeFileAtomic(join(folder, 'new'), 'x')).rejects.toThrow('got no permission');
    await chmod(folder, 0o700);
  });

  test('readTextIfPresent is null only for a missing file', async () => {
    expect(await readTextIfPresent(join(folder, 'missing'))).toBeNull();
    await expect(readTextIfPresent(folder)).rejects.toThrow('a folder');
  });
});

test('texts: byte order mark and wrong bytes', async () => {
  await writeFile(join(folder, 'bom.json'), '\ufeff{"a": Infinity}');
  expect(await readJson(join(folder, 'bom.json'))).toEqual({ a: Number.POSITIVE_INFINITY });
  await writeFile(join(folder, 'latin1'), Uint8Array.of(0x63, 0x61, 0x66, 0xe9));
  await expect(readText(join(folder, 'latin1'))).rejects.toThrow('expected UTF-8');
});

describe('writeFileAtomic', () => {
  test('writes every kind of content, creates folders', async () => {
    const path = join(folder, 'deep', 'er', 'a');
    async function* chunks() {
      yield Uint8Array.of(97);
      yield new Uint8Array(0);
      yield Uint8Array.of(98);
    }
    for (const [content, text] of [
      ['é', 'é'],
      [Uint8Array.of(104, 105), 'hi'],
      [[Uint8Array.of(104), Uint8Array.of(105)], 'hi'],
      [chunks(), 'ab'],
    ] as const) {
      await writeFileAtomic(path, content);
      expect(await readText(path)).toBe(text);
    }
    expect(await readdir(join(folder, 'deep', 'er'))).toEqual(['a']);
  });

  test('a failure in the middle leaves the previous file and no temporary', async () => {
    const path = join(folder, 'a');
    await writeFileAtomic(path, 'old');
    async function* failing() {
      yield new Uint8Array(1 << 20);
      throw new Error('the model went away');
    }
    await expect(writeFileAtomic(path, failing())).rejects.toThrow('the model went away');
    expect(await readText(path)).toBe('old');
    expect(await readdir(folder)).toEqual(['a']);
  });

  test('readers never see a part: the old file stays until the rename', async () => {
    const path = join(folder, 'a');
    await writeFileAtomic(path, 'old');
    const seen: string[] = [];
    async function* slow() {
      for (const byte of [110, 101, 119]) {
        yield Uint8Array.of(byte);
        seen.push(await readText(path));
      }
    }
    await writeFileAtomic(path, slow());
    expect(seen).toEqual(['old', 'old', 'old']);
    expect(await readText(path)).toBe('new');
  });

  test('temporaries of dead writers go, those of living ones stay', async () => {
    const [dead, alive] = [`.a.tmp-${deadProcess()}-0`, `.a.tmp-${process.ppid}-0`];
    const ownOld = `.a.tmp-${process.pid}-999999`; // an earlier process that had this id
    const foreign = ['.a.tmp-x', '.b.tmp-1-0', 'a.tmp-1-0'];
    for (const name of [dead, alive, ownOld, ...foreign]) await writeFile(join(folder, name), 'x');
    await writeFileAtomic(join(folder, 'a'), 'new');
    expect((await readdir(folder)).sort()).toEqual(['a', alive, ...foreign].sort());
  });

  test('several at once: each is whole, the last rename wins', async () => {
    const path = join(folder, 'a');
    const texts = Array.from({ length: 8 }, (_, i) => String(i).repeat(100_000));
    await Promise.all(texts.map((text) => writeFileAtomic(path, text)));
    expect(texts).toContain(await readText(path));
    expect(await readdir(folder)).toEqual(['a']);
  });

  test.skipIf(process.platform === 'win32')(
    'a symbolic link stays one; a hard link keeps the old text',
    async () => {
      await mkdir(join(folder, 'real'));
      await writeFile(join(folder, 'real', 'a'), 'old');
      await link(join(folder, 'real', 'a'), join(folder, 'hard'));
      await symlink(join('real', 'a'), join(folder, 'link'));
      await writeFileAtomic(join(folder, 'link'), 'new');
      expect((await lstat(join(folder, 'link'))).isSymbolicLink()).toBe(true);
      expect(await readText(join(folder, 'real', 'a'))).toBe('new');
      expect(await readText(join(folder, 'hard'))).toBe('old');
    },
  );

  test.skipIf(process.platform !== 'linux')('where nothing can be made, it ends', async () => {
    await expect(writeFileAtomic('/proc/none/file', 'x')).rejects.toThrow(FileError);
    await expect(writeFileAtomic('/proc/none/deeper/file', 'x')).rejects.toThrow('/proc/none/deeper/file');
  });

  test('a file in the place of its folder', async () => {
    await writeFile(join(folder, 'taken'), 'x');
    await expect(writeFileAtomic(join(folder, 'taken', 'deeper', 'file'), 'x')).rejects.toThrow(FileError);
  });

  test('a folder in the place of the file', async () => {
    await mkdir(join(folder, 'a'));
    await expect(writeFileAtomic(join(folder, 'a'), 'x')).rejects.toThrow(FileError);
    expect(await readdir(folder)).toEqual(['a']);
  });

  test.skipIf(process.platform === 'win32')(
    'the operating system ends the write: the file size limit',
    async () => {
      const path = join(folder, 'a');
      await writeFileAtomic(path, 'old');
      const scripts = await mkdtemp(join(tmpdir(), 'mamba-child-'));
      const limited = [
        '-c',
        'ulimit -f 64; exec "$@"',
        'sh',
        process.execPath,
        await bundleChild(scripts),
        'file',
        path,
      ];
      const child = spawnSync('sh', limited, { encoding: 'utf8' });
      await rm(scripts, { recursive: true });
      expect(child.stdout).toContain('ERR_FILE');
      expect(child.stdout).toContain('got the file size limit reached');
      expect(await readFile(path, 'utf8')).toBe('old');
      expect(await readdir(folder)).toEqual(['a']);
    },
  );
});
