import { loss } from './cases/loss.ts';
import { checkKernels } from './check.ts';

checkKernels(['crossEntropy', 'crossEntropyGrad'], loss);
