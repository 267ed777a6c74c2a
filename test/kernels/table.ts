/** The case table: every kernel, every edge. Each case runs on every device that opens, against the float64 result. */
import { attention } from './cases/attention.ts';
import { conv } from './cases/conv.ts';
import { copy } from './cases/copy.ts';
import { elementwise } from './cases/elementwise.ts';
import { gatedNorm } from './cases/gated-norm.ts';
import { heads } from './cases/heads.ts';
import { loss } from './cases/loss.ts';
import { matmul } from './cases/matmul.ts';
import { narrow } from './cases/narrow.ts';
import { norm } from './cases/norm.ts';
import { reduce } from './cases/reduce.ts';
import { rotation } from './cases/rotation.ts';
import { scan } from './cases/scan.ts';
import { ssd } from './cases/ssd.ts';
import type { Case } from './harness.ts';

export const TABLE: readonly Case[] = [
  ...elementwise,
  ...reduce,
  ...copy,
  ...matmul,
  ...narrow,
  ...norm,
  ...gatedNorm,
  ...conv,
  ...scan,
  ...rotation,
  ...heads,
  ...ssd,
  ...attention,
  ...loss,
];
