/**
 * A state dict out of the pickle that `torch.save` writes: names, and for every tensor the storage it looks
 * at, with offset, shape and strides. The six names below are all a pickle may refer to; torch itself builds
 * the same from them (torch/_utils.py: _rebuild_tensor_v2, _rebuild_parameter).
 */
import { FormatError } from '../base/errors.ts';
import { describe, orderedDict, type PickleFail, type PickleFunction } from './pickle.ts';
import { listProblems } from './problems.ts';
import type { StoredDType } from './tensor-file.ts';

/** Numbers of one type that tensors share; `key` names the bytes in the container. */
export interface TorchStorage {
  readonly key: string;
  readonly dtype: StoredDType;
  readonly count: number;
}

/** Offset and strides count elements of the storage; every element is proven to lie inside it. */
export class TorchTensor {
  readonly storage: TorchStorage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  /** From the first element to behind the last, in elements. */
  readonly span: number;

  constructor(
    storage: TorchStorage,
    offset: number,
    shape: readonly number[],
    strides: readonly number[],
    span: number,
  ) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
    this.span = span;
  }
}

/** The class of a storage, as it appears in a persistent id. */
class StorageType {
  readonly dtype: StoredDType;

  constructor(dtype: StoredDType) {
    this.dtype = dtype;
  }
}

const STORAGE_TYPES: Record<string, StoredDType> = {
  DoubleStorage: 'F64',
  FloatStorage: 'F32',
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ByteStorage: 'U8',
  BoolStorage: 'U8',
};
const MAX_RANK = 64;

export const TORCH_GLOBALS: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ['collections.OrderedDict', orderedDict],
  ['torch._utils._rebuild_tensor', rebuildTensor as PickleFunction],
  ['torch._utils._rebuild_tensor_v2', rebuildTensor as PickleFunction],
  ['torch._utils._rebuild_parameter', rebuildParameter as PickleFunction],
  ['torch.Size', size as PickleFunction],
  ...Object.entries(STORAGE_TYPES).map(([name, dtype]) => [`torch.${name}`, new StorageType(dtype)] as const),
]);

/** Collects the storages that a pickle names; the same key is the same storage. */
export function storageCollector(): { storages: Map<string, TorchStorage>; persistent: PickleFunction } {
  const storages = new Map<string, TorchStorage>();
  const persistent: PickleFunction = (id, fail) => {
    const [kind, type, key, , count, view = null] = id;
    if (kind !== 'storage' || !(type instanceof StorageType) || typeof key !== 'string' || !isCount(count))
      return fail('a storage with type, key and size', describe(id));
    if (view !== null) return fail('a whole storage', 'a view of one (written before torch 0.4)');
    const known = storages.get(key);
    if (known && (known.dtype !== type.dtype || known.count !== count))
      return fail(`storage ${key} as ${known.count} of ${known.dtype}`, `${count} of ${type.dtype}`);
    const storage = known ?? { key, dtype: type.dtype, count };
    storages.set(key, storage);
    return storage;
  };
  return { storages, persistent };
}

/** The tensors of an unpickled state dict. One FormatError lists everything in it that is no tensor. */
export function stateDict(value: unknown, file: string): Map<string, TorchTensor> {
  if (!(value instanceof Map)) {
    throw new FormatError(
      `openTorchBin: expected a state dict in ${file}, got ${describe(value)}. Save model.state_dict().`,
    );
  }
  const tensors = new Map<string, TorchTensor>();
  const problems: string[] = [];
  for (const [name, tensor] of value as Map<unknown, unknown>) {
    if (typeof name === 'string' && tensor instanceof TorchTensor) tensors.set(name, tensor);
    else problems.push(`${describe(name)}: ${describe(tensor)}`);
  }
  if (problems.length === 0) return tensors;
  throw new FormatError(
    `openTorchBin: expected a state dict with tensors only in ${file}, got ${listProblems(problems)}. Save model.state_dict().`,
  );
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isExtents(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.length <= MAX_RANK && value.every(isCount);
}

function isStorage(value: unknown): value is TorchStorage {
  return typeof value === 'object' && value !== null && 'key' in value && 'count' in value;
}

/** (storage, offset, shape, strides, ...); what follows concerns gradients. */
function rebuildTensor(args: readonly unknown[], fail: PickleFail): TorchTensor {
  const [storage, offset, shape, strides] = args;
  if (!isStorage(storage) || !isCount(offset) || !isExtents(shape) || !isExtents(strides))
    return fail('a tensor of storage, offset, shape and strides', describe(args));
  if (shape.length !== strides.length)
    return fail(`${shape.length} strides for shape [${shape}]`, `${strides.length}`);
  const span = shape.includes(0)
    ? 0
    : shape.reduce((sum, extent, axis) => sum + (extent - 1) * strides[axis]!, 1);
  if (!(offset + span <= storage.count)) {
    const range = `elements ${offset} to ${offset + span}`;
    return fail(`a tensor inside storage ${storage.key} of ${storage.count} elements`, range);
  }
  // Copies: a list stays in the pickle's memory, where later operations could change what was just checked.
  return new TorchTensor(storage, offset, [...shape], [...strides], span);
}

function rebuildParameter(args: readonly unknown[], fail: PickleFail): TorchTensor {
  const [tensor] = args;
  return tensor instanceof TorchTensor ? tensor : fail('a parameter that is a tensor', describe(tensor));
}

function size(args: readonly unknown[], fail: PickleFail): readonly number[] {
  const [extents] = args;
  return isExtents(extents) ? extents : fail('a torch.Size of integers', describe(extents));
}
