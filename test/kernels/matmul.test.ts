import { matmul } from './cases/matmul.ts';
import { checkKernels } from './check.ts';

checkKernels(['matmul'], matmul);
