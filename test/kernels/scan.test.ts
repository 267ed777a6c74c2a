import { scan } from './cases/scan.ts';
import { checkKernels } from './check.ts';

checkKernels(['selectiveScan', 'selectiveScanGrad'], scan);
