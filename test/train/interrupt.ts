/** What tests of resumed runs share. */
import { devices } from '../kernels/devices.ts';

/** Stops like Ctrl-C after step `step`. */
export function interruptAt(step: number) {
  const controller = new AbortController();
  return {
    signal: controller.signal,
    onProgress: (event: { kind: string; step?: number }) => {
      if (event.kind === 'step' && event.step === step) controller.abort();
    },
  };
}

/** Each kind of device once: instruction sets share everything that matters to a run. */
export const kinds = devices.filter(
  ({ backend }, i) => devices.findIndex((d) => d.backend.name === backend.name) === i,
);
