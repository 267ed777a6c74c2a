/**
 * The errors of the library. Message form: `op: expected X, got Y. Remedy.`
 * `code` is stable and may be matched by callers; messages may improve.
 */
export abstract class MambaError extends Error {
  abstract readonly code: string;

  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** A tensor has the wrong rank or extents. */
export class ShapeError extends MambaError {
  readonly code = 'ERR_SHAPE';
}

/** A tensor or file holds the wrong element type. */
export class DTypeError extends MambaError {
  readonly code = 'ERR_DTYPE';
}

/** The chosen device cannot do this; the message names one that can. */
export class UnsupportedError extends MambaError {
  readonly code = 'ERR_UNSUPPORTED';
}

/** A file or byte string is damaged, truncated or not what it claims to be. */
export class FormatError extends MambaError {
  readonly code = 'ERR_FORMAT';
}

/** An option or configuration is missing, contradictory or out of range. */
export class ConfigError extends MambaError {
  readonly code = 'ERR_CONFIG';
}

/** Something is used in a state that does not allow it: disposed tensors, another model's state. */
export class StateError extends MambaError {
  readonly code = 'ERR_STATE';
}
