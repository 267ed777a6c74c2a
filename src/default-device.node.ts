/** Which device new tensors live on in Node: MAMBA_DEVICE, else the fastest that opens. */
import { type Backend, type DeviceName, remember } from './backend/backend.ts';
import { openNative } from './backend/native.ts';
import { createReference } from './backend/reference/index.ts';
import { openWasmFile } from './backend/wasm.node.ts';
import { ConfigError, UnsupportedError } from './base/errors.ts';

/** Fastest first. Opening them is synchronous, so that making a tensor can be. */
const DEVICES: Partial<Record<DeviceName, () => Backend>> = {
  native: openNative,
  wasm: openWasmFile,
  reference: createReference,
};

let onNotice: (message: string) => void = () => {};

/**
 * Receives a message when the default device is not the fastest one, with the reason. The
 * library itself prints nothing.
 */
export function onDeviceNotice(callback: (message: string) => void): void {
  onNotice = callback;
}

/**
 * Throws ConfigError for an unknown MAMBA_DEVICE, UnsupportedError with what was tried when it does not open.
 */
export function openDefaultDevice(wanted: string | undefined = process.env.MAMBA_DEVICE): Backend {
  const names = Object.keys(DEVICES) as DeviceName[];
  if (wanted) {
    const open = names.includes(wanted as DeviceName) ? DEVICES[wanted as DeviceName] : undefined;
    if (open) return remember(open());
    throw new ConfigError(`device: expected MAMBA_DEVICE to be one of ${names.join(', ')}, got ${wanted}.`);
  }
  const reasons: string[] = [];
  for (const name of names) {
    try {
      const backend = DEVICES[name]!();
      if (reasons.length > 0) onNotice(`device: using ${name}. ${reasons.join('\n')}`);
      return remember(backend);
    } catch (error) {
      if (!(error instanceof UnsupportedError)) throw error;
      reasons.push(error.message);
    }
  }
  throw new UnsupportedError(`device: expected one that opens, got none.\n${reasons.join('\n')}`);
}
