/**
 * Learning-rate schedules: a linear warm-up counted in steps, then a shape over the rest of the run.
 * Pure functions, so a resumed run needs no state. A run limited by time follows the elapsed share of
 * its time instead of its steps.
 */
import { ConfigError } from '../base/errors.ts';

export const SCHEDULES = ['cosine', 'wsd', 'constant'] as const;
export type ScheduleKind = (typeof SCHEDULES)[number];

export interface Schedule {
  /** `cosine`: half a wave; `wsd`: stable, then a linear decay; `constant`. */
  kind: ScheduleKind;
  /** The largest learning rate. */
  peak: number;
  /** Steps of linear warm-up from peak / warmup to peak. */
  warmup: number;
  /** The rate at the end, as a fraction of the peak. */
  final: number;
  /** Of `wsd`: the share of the run that decays. */
  decayShare: number;
}

/**
 * Fills defaults: cosine to a tenth of the peak, no warm-up, a fifth for the
 * decay of `wsd`. Throws ConfigError.
 */
export function makeSchedule(options: Partial<Schedule> & { peak: number }): Schedule {
  const schedule: Schedule = { kind: 'cosine', warmup: 0, final: 0.1, decayShare: 0.2, ...options };
  const problems: string[] = [];
  if (!SCHEDULES.includes(schedule.kind))
    problems.push(`kind to be one of ${SCHEDULES.join(', ')}, got ${String(schedule.kind)}`);
  if (!(schedule.peak > 0 && Number.isFinite(schedule.peak)))
    problems.push(`peak to be a positive number, got ${schedule.peak}`);
  if (!(Number.isInteger(schedule.warmup) && schedule.warmup >= 0))
    problems.push(`warmup to be a number of steps, got ${schedule.warmup}`);
  if (!(schedule.final >= 0 && schedule.final <= 1))
    problems.push(`final to be within 0..1, got ${schedule.final}`);
  if (!(schedule.decayShare > 0 && schedule.decayShare <= 1))
    problems.push(`decayShare to be above 0 and at most 1, got ${schedule.decayShare}`);
  if (problems.length > 0)
    throw new ConfigError(`schedule: expected ${problems.join('; ')}. Correct the schedule.`);
  return schedule;
}

/** The fraction of the peak after `progress` (0..1) of the run behind the warm-up. */
export function shapeAt({ kind, final, decayShare }: Schedule, progress: number): number {
  const p = Math.min(1, Math.max(0, progress));
  if (kind === 'constant') return 1;
  if (kind === 'cosine') return final + ((1 - final) * (1 + Math.cos(Math.PI * p))) / 2;
  const decayed = Math.max(0, (p - (1 - decayShare)) / decayShare);
  return 1 - (1 - final) * decayed;
}

function warmUp({ warmup }: Schedule, step: number): number {
  return step < warmup ? (step + 1) / warmup : 1;
}

/**
 * The rate of step `step` (from 0) of a run of `steps`: the peak right after the
 * warm-up, `final` in the last step.
 */
export function rateAtStep(schedule: Schedule, step: number, steps: number): number {
  const first = schedule.warmup;
  if (step < first) return schedule.peak * warmUp(schedule, step);
  const last = Math.max(first + 1, steps - 1);
  return schedule.peak * shapeAt(schedule, (step - first) / (last - first));
}

/** The rate of step `step` when `progress` (0..1) of the time is over; the warm-up still counts steps. */
export function rateAtProgress(schedule: Schedule, step: number, progress: number): number {
  return schedule.peak * warmUp(schedule, step) * shapeAt(schedule, progress);
}
