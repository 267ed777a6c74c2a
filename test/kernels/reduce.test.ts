import { reduce } from './cases/reduce.ts';
import { checkKernels } from './check.ts';

checkKernels(['sum', 'max', 'argmax', 'sumSquares'], reduce);
