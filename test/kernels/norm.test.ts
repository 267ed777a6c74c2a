import { gatedNorm } from './cases/gated-norm.ts';
import { norm } from './cases/norm.ts';
import { checkKernels } from './check.ts';

checkKernels(['norm', 'normGrad', 'gatedNorm', 'gatedNormGrad'], [...norm, ...gatedNorm]);
