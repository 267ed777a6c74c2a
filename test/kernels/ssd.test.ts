import { ssd } from './cases/ssd.ts';
import { checkKernels } from './check.ts';

checkKernels(['ssd', 'ssdGrad'], ssd);
