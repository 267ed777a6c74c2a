import { conv } from './cases/conv.ts';
import { checkKernels } from './check.ts';

checkKernels(['causalConv', 'causalConvGrad'], conv);
