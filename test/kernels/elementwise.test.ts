import { elementwise } from './cases/elementwise.ts';
import { checkKernels } from './check.ts';

checkKernels(['unary', 'unaryGrad', 'binary', 'affine', 'axpy', 'fill', 'adamw'], elementwise);
