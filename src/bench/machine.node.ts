/** The machine that a measurement ran on, and how much of it others took meanwhile. */
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { VERSION } from '../version.ts';

export interface Machine {
  cpu: string;
  processors: number;
  memoryBytes: number;
  platform: string;
  node: string;
  version: string;
  /** Of the last minute, before the measurement. */
  load: number;
  /**
   * Of all processors, what was taken meanwhile by others than this process; null
   * where the system does not tell.
   */
  takenByOthers: number | null;
}

/** Begins to watch; the result tells about the time between the two calls. */
export function watchMachine(): () => Machine {
  const load = loadavg()[0] ?? 0;
  const [started, busyBefore, ownBefore] = [performance.now(), busySeconds(), ownSeconds()];
  return () => {
    const processors = cpus().length;
    const seconds = (performance.now() - started) / 1000;
    const others = busySeconds() - busyBefore - (ownSeconds() - ownBefore);
    // The system counts in ticks of ten milliseconds per processor.
    const known = processors > 0 && seconds > 0.5;
    return {
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      processors: availableParallelism(),
      memoryBytes: totalmem(),
      platform: `${process.platform}-${process.arch}`,
      node: process.versions.node,
      version: VERSION,
      load,
      takenByOthers: known ? Math.max(0, Math.min(1, others / (seconds * processors))) : null,
    };
  };
}

function busySeconds(): number {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0) / 1000;
}

function ownSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** The most memory that this process has held so far. */
export function peakBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}
