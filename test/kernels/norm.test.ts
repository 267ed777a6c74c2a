import { norm } from './cases/norm.ts';
import { checkKernels } from './check.ts';

checkKernels(['norm', 'normGrad'], norm);
