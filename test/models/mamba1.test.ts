/** Mamba-1: every configuration on every device, and in float64, where the laws hold to the last digits. */
import { checkModels } from './checker.ts';
import { MAMBA1_CONFIGS } from './configs.ts';

checkModels(MAMBA1_CONFIGS);
