import { attention } from './cases/attention.ts';
import { checkKernels } from './check.ts';

checkKernels(['attention', 'attentionGrad'], attention);
