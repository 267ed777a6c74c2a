/**
 * Downloads told in lines: on a terminal one live line per file with size, speed and time left,
 * elsewhere a line every few seconds.
 */
import { formatBytes, type LoadEvent } from '../index.node.ts';
import { formatDuration, type ProgressStream } from '../train/index.ts';

const TTY_INTERVAL_MS = 100;
const PLAIN_INTERVAL_MS = 5000;
const BAR_WIDTH = 20;
const MAX_NAME = 40;

/** Feed it the events of loadModel; `now` is a clock in milliseconds. */
export function downloadProgress(
  stream: ProgressStream,
  now: () => number = () => performance.now(),
): (event: LoadEvent) => void {
  const interval = stream.isTTY ? TTY_INTERVAL_MS : PLAIN_INTERVAL_MS;
  let repo = '';
  let current = '';
  let startedAt = 0;
  let startBytes = 0;
  let shownAt = 0;
  let isOpen = false;

  /** A live line takes the place of the one before; any other stays. */
  const show = (text: string, isLive: boolean): void => {
    const start = stream.isTTY ? '\r\u001b[2K' : '';
    const width = (stream.columns ?? 80) - 1;
    const line = stream.isTTY && isLive ? text.slice(0, width) : text;
    isOpen = isLive && stream.isTTY === true;
    stream.write(`${start}${line}${isOpen ? '' : '\n'}`);
    shownAt = now();
  };
  const file = (event: Extract<LoadEvent, { kind: 'file' }>): void => {
    const { name, doneBytes, totalBytes, stage } = event;
    if (event.repo !== repo) show(`downloading ${event.repo}`, false);
    if (event.repo !== repo || name !== current) {
      [repo, current, startedAt, startBytes] = [event.repo, name, now(), doneBytes];
      shownAt = Number.NEGATIVE_INFINITY;
      if (!stream.isTTY) shownAt = startedAt;
    }
    const seconds = (now() - startedAt) / 1000;
    const shown = (name.length > MAX_NAME ? `…${name.slice(1 - MAX_NAME)}` : name).padEnd(24);
    if (stage === 'done') show(`${shown}  ${formatBytes(totalBytes)}  in ${formatDuration(seconds)}`, false);
    else if (stage === 'checking' && stream.isTTY)
      show(`${shown}  ${formatBytes(totalBytes)}  checking`, true);
    else if (now() - shownAt >= interval) {
      const parts = [shown, ...amounts(doneBytes, totalBytes, doneBytes - startBytes, seconds)];
      if (stream.isTTY) parts.splice(1, 0, bar(doneBytes / totalBytes));
      show(parts.join('  '), true);
    }
  };
  return (event) => {
    if (event.kind === 'file') return file(event);
    if (event.kind === 'notice') return show(event.message, false);
    if (isOpen) stream.write('\n');
    isOpen = false;
  };
}

/** Speed counts what came in this run, not what an earlier one had left. */
function amounts(doneBytes: number, totalBytes: number, newBytes: number, seconds: number): string[] {
  const size = `${Math.floor((100 * doneBytes) / totalBytes)} % of ${formatBytes(totalBytes)}`;
  if (!(newBytes > 0 && seconds > 0)) return [size];
  const speed = newBytes / seconds;
  return [size, `${formatBytes(speed)}/s`, `${formatDuration((totalBytes - doneBytes) / speed)} left`];
}

function bar(share: number): string {
  const full = Math.floor(BAR_WIDTH * share);
  return `[${'#'.repeat(full)}${'-'.repeat(BAR_WIDTH - full)}]`;
}
