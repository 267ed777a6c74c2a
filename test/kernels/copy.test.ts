import { copy } from './cases/copy.ts';
import { checkKernels } from './check.ts';

checkKernels(['copy', 'scatter', 'gatherRows', 'scatterAddRows', 'widen', 'narrow'], copy);
