import { rotation } from './cases/rotation.ts';
import { checkKernels } from './check.ts';

checkKernels(['angleScan', 'angleScanGrad', 'rotate', 'rotateGrad'], rotation);
