/** What every bench prints: machine, versions, medians with spread. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** `median (min..max)` of a list, scaled and rounded. */
export function spread(values, digits = 0) {
  const show = (x) => x.toFixed(digits);
  return `${show(median(values))} (${show(Math.min(...values))}..${show(Math.max(...values))})`;
}

/** Machine and versions. */
export function machineLines(...versions) {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  const also = versions.map((v) => `, ${v}`).join('');
  return [
    `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, load ${loadavg()[0].toFixed(1)}; mamba.ts ${version}, Node ${process.version}${also}.`,
  ];
}

export function printMachine(...versions) {
  for (const line of machineLines(...versions)) console.log(line);
}

/** `--name value` pairs with defaults; numbers only. */
export function numbers(defaults) {
  const options = { ...defaults };
  const args = process.argv.slice(2);
  for (let i = 0; i < args.length; i += 2) {
    const key = args[i]?.replace(/^--/, '');
    if (!(key in options) || !Number.isFinite(Number(args[i + 1]))) {
      console.error(
        `usage: ${Object.entries(defaults)
          .map(([k, v]) => `[--${k} ${v}]`)
          .join(' ')}`,
      );
      process.exit(2);
    }
    options[key] = Number(args[i + 1]);
  }
  return options;
}
