/**
 * A turn of the event loop: on a CPU device everything else would wait for the last token,
 * timers and abort signals included.
 */

type Schedule = (callback: () => void) => void;

/** Node's setImmediate; in browsers a message, because their timers wait at least 4 ms. */
const schedule: Schedule =
  (globalThis as { setImmediate?: Schedule }).setImmediate ??
  ((callback) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      callback();
    };
    port2.postMessage(null);
  });

export function turn(): Promise<void> {
  return new Promise((resolve) => schedule(resolve));
}
