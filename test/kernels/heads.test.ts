import { heads } from './cases/heads.ts';
import { checkKernels } from './check.ts';

checkKernels(['turnHeads', 'turnHeadsGrad'], heads);
