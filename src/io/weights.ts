/** One way into weights of any format: what a file is, its first bytes say, not its name. */
import type { ByteSource } from '../base/source.ts';
import { openSafetensors } from './safetensors.ts';
import type { TensorFile } from './tensor-file.ts';
import { isTorchBin, openTorchBin } from './torch-bin.ts';

/** Opens a safetensors file or one of torch.save; anything else is reported as damaged safetensors. */
export async function openWeights(source: ByteSource): Promise<TensorFile> {
  return (await isTorchBin(source)) ? openTorchBin(source) : openSafetensors(source);
}
