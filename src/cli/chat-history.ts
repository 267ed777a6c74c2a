/**
 * What was typed in earlier chats, for the arrow keys: a file of JSON strings, one a line, oldest first,
 * readable by its owner alone. It is a convenience, so a file that cannot be read or written costs the
 * memory of it and nothing else.
 */
import { appendFileSync, chmodSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { makeFolder } from '../index.node.ts';

export const MAX_ENTRIES = 1000;
/** Longer messages are remembered until the program ends only. */
export const MAX_ENTRY_LENGTH = 8192;

export class ChatHistory {
  /** Newest first, as node:readline wants them. */
  readonly entries: string[] = [];
  readonly #path: string | null;

  /** Null keeps nothing on the disk. */
  constructor(path: string | null) {
    this.#path = path;
    if (path !== null) attempt(() => this.#read(path));
  }

  add(entry: string): void {
    if (entry === '' || entry === this.entries[0]) return;
    this.entries.unshift(entry);
    this.entries.length = Math.min(this.entries.length, MAX_ENTRIES);
    const path = this.#path;
    if (path === null || entry.length > MAX_ENTRY_LENGTH) return;
    attempt(() => {
      makeFolder(dirname(path));
      appendFileSync(path, `${JSON.stringify(entry)}\n`, { mode: OWNER_ONLY });
    });
  }

  /**
   * Several programs may append to the file at a time, so it is cut down when it is read and is
   * twice as long as it needs to be.
   */
  #read(path: string): void {
    const lines = readFileSync(path, 'utf8').split('\n').filter(Boolean);
    if (lines.length > 2 * MAX_ENTRIES) {
      const temporary = `${path}.${process.pid}`;
      try {
        writeFileSync(temporary, `${lines.slice(-MAX_ENTRIES).join('\n')}\n`, { mode: OWNER_ONLY });
        renameSync(temporary, path);
      } finally {
        rmSync(temporary, { force: true });
      }
    } else chmodSync(path, OWNER_ONLY);
    for (const line of lines.slice(-MAX_ENTRIES)) {
      // A line that a crash cut short is left out.
      attempt(() => {
        const entry: unknown = JSON.parse(line);
        if (typeof entry === 'string') this.entries.unshift(entry);
      });
    }
  }
}

const OWNER_ONLY = 0o600;

function attempt(action: () => void): void {
  try {
    action();
  } catch {
    // See the header.
  }
}
