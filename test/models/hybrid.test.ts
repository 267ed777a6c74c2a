/** Stacks with attention layers: every configuration on every device, and in float64, where the laws hold to the last digits. */
import { checkModels } from './checker.ts';
import { HYBRID_CONFIGS } from './configs.ts';

checkModels(HYBRID_CONFIGS);
