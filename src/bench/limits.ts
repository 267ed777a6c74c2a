/** The limits of the machine, and how long a piece of work takes at them. */
import type { Backend } from '../backend/backend.ts';

/** What the native device measures of itself. */
export interface MeasuredLimits {
  measurePeak(kind: 'f32' | 'bf16' | 'int8'): number;
  measureRead(sizeBytes: number): number;
}

/** What products are computed in. */
export type ProductKind = 'f32' | 'bf16' | 'int16' | 'int8';

export interface Limits {
  /** Bytes per second of reading memory that is as large as the weights. */
  read: number;
  /** Operations per second in float32. */
  float: number;
  /** Operations per second in the type of the products. */
  product: number;
}

/** Beyond this size every read comes from memory. */
const LARGEST_READ = 2 ** 29;

/** Null for a device that cannot measure itself. */
export function limitsOf(device: Backend, kind: ProductKind, weightBytes: number): Limits | null {
  if (!('measureRead' in device)) return null;
  const measured = device as Backend & MeasuredLimits;
  const float = measured.measurePeak('f32');
  return {
    read: measured.measureRead(Math.min(weightBytes, LARGEST_READ)),
    float,
    product: productPeak(measured, kind, float),
  };
}

/** An activation of 16 bits is two of 8; without dot products of integers the CPU has float32. */
function productPeak(device: MeasuredLimits, kind: ProductKind, float: number): number {
  if (kind === 'f32') return float;
  if (kind === 'int16') return Math.max(float, device.measurePeak('int8') / 2);
  return device.measurePeak(kind);
}

/** Work in operations and bytes. */
export interface Task {
  product: number;
  float: number;
  bytes: number;
}

/**
 * Seconds that a task takes at least, and what sets them: memory and arithmetic may overlap,
 * operations of two types may not.
 */
export function leastSeconds(
  task: Task,
  limits: Limits,
): { seconds: number; bound: 'memory' | 'arithmetic' } {
  const arithmetic = task.product / limits.product + task.float / limits.float;
  const memory = task.bytes / limits.read;
  return memory > arithmetic
    ? { seconds: memory, bound: 'memory' }
    : { seconds: arithmetic, bound: 'arithmetic' };
}
