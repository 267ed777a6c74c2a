/** `mamba-ts/backend`: choosing a device, and the contract for those who write one. */
export {
  type Backend,
  type BackendFactory,
  type BufferRef,
  currentDevice,
  type DeviceName,
  type KernelArgs,
  type KernelName,
  type Kernels,
  kernelOf,
  type MemoryStats,
  openDevice,
  type Recording,
  registerBackend,
  registeredDevices,
  remember,
  type Storage,
  setDefaultDevice,
  useDevice,
  withDevice,
} from './backend.ts';
export { KERNELS } from './kernels.ts';
export { createReference, referenceFactory } from './reference/index.ts';
export { type FetchWasmOptions, fetchWasm, openWasm, wasmFactory } from './wasm.ts';
export { type WasmVariant, wasmVariants } from './wasm-variant.ts';
