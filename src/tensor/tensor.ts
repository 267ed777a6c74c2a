/**
 * Tensor: a contiguous row-major array on a device, with its place in the gradient graph. Data only:
 * operations live in primitives.ts and ops/. Memory is reference counted: handles (Tensor) and the
 * graph share a Block, and the last one to let go returns the buffer to the device's pool. `scope`
 * (scope.ts) disposes handles in bulk.
 */
import { type Backend, type BufferRef, currentDevice, kernelOf, type Storage } from '../backend/backend.ts';
import { BLOCK } from '../base/blocks.ts';
import {
  type DType,
  type HostArray,
  hostArray,
  LAYOUTS,
  rawStorage,
  storageBytes,
  type TypedArray,
} from '../base/dtype.ts';
import { DTypeError, ShapeError, StateError } from '../base/errors.ts';
import { deviceBytes, inPanels } from '../base/panels.ts';
import type { Rng } from '../base/rng.ts';
import { type Shape, showShape, sizeOf } from '../base/shape.ts';
import { toFloats } from '../base/weight-types.ts';
import { type PanelTensor, readPanels, writePanels } from './panels.ts';

/** A counted device buffer. A deferred one takes no memory before its first use. */
export class Block {
  readonly backend: Backend;
  readonly #sizeBytes: number;
  #storage: Storage | null;
  #refs = 1;

  constructor(backend: Backend, sizeBytes: number, deferred = false) {
    this.backend = backend;
    this.#sizeBytes = sizeBytes;
    this.#storage = deferred ? null : backend.alloc(sizeBytes);
  }

  get storage(): Storage {
    this.#storage ??= this.backend.alloc(this.#sizeBytes);
    return this.#storage;
  }

  get refs(): number {
    return this.#refs;
  }

  retain(): this {
    this.#refs++;
    return this;
  }

  release(): void {
    if (--this.#refs === 0 && this.#storage) this.backend.free(this.#storage);
  }

  /** Another block with this buffer, for one owner; this one, for all who hold it, goes on with a copy. */
  separate(): Block {
    const other = new Block(this.backend, this.#sizeBytes, true);
    other.#storage = this.storage;
    this.#storage = this.backend.alloc(this.#sizeBytes);
    const [x, y] = [other, this].map(({ storage }) => ({ storage: storage!, offset: 0 }));
    const ones = { d0: 1, d1: 1, d2: 1, d3: 1, d4: 1, s0: 0, s1: 0, s2: 0, s3: 0, s4: 0 };
    const d5 = Math.ceil(this.#sizeBytes / 4);
    kernelOf(this.backend, 'copy')({ x: x!, y: y!, ...ones, d5, s5: 1 });
    return other;
  }
}

/** What a tensor needs to know of its place in the graph; implemented in tape.ts. */
export interface GraphNode {
  readonly op: string;
  retain(): void;
  release(): void;
}

/** What a handle holds; shared with the finalizer, which must not see the handle itself. */
interface Holding {
  block: Block | null;
  node: GraphNode | null;
}

function letGo(holding: Holding): void {
  holding.block?.release();
  holding.node?.release();
  holding.block = null;
  holding.node = null;
}

/** Safety net for tensors made outside any scope and never disposed. */
const finalizer = new FinalizationRegistry<Holding>(letGo);

/** The innermost open scope; scope.ts opens and closes them. */
export const scopes: { current: Tensor[] | null } = { current: null };

export interface TensorOptions {
  dtype?: DType;
  /** The device; the current one when omitted. */
  device?: Backend;
  requiresGrad?: boolean;
}

export class Tensor implements BufferRef {
  readonly shape: Shape;
  readonly dtype: DType;
  /** First element within the block. */
  readonly offset: number;
  /** For leaves: collect a gradient in `grad` on backward(). */
  requiresGrad = false;
  /** The collected gradient of a leaf; same shape, owned by this tensor. */
  grad: Tensor | null = null;
  /**
   * Integer tensors made from host data keep it: ids are checked, and masks derived, without reading back.
   */
  host: Int32Array | null = null;
  /** Index among the outputs of the node that made it. */
  readonly outputIndex: number = 0;
  readonly #holding: Holding;

  /** Internal: takes over one reference of `block`. Use Tensor.from, zeros, ... */
  constructor(block: Block, shape: Shape, dtype: DType, offset = 0, tracked = true) {
    this.shape = shape;
    this.dtype = dtype;
    this.offset = offset;
    this.#holding = { block, node: null };
    if (!tracked) return;
    if (scopes.current) scopes.current.push(this);
    else finalizer.register(this, this.#holding, this.#holding);
  }

  /** An uninitialised tensor. */
  static empty(shape: Shape, dtype: DType = 'f32', device: Backend = currentDevice()): Tensor {
    return new Tensor(new Block(device, deviceBytes(dtype, shape)), shape, dtype);
  }

  /** An uninitialised tensor that takes memory when it is first written or read. */
  static deferred(shape: Shape, dtype: DType = 'f32', device: Backend = currentDevice()): Tensor {
    return new Tensor(new Block(device, deviceBytes(dtype, shape), true), shape, dtype);
  }

  /**
   * Copies host data. The dtype follows the array: Int32Array makes i32, everything else f32 unless
   * said; narrow types as `write`.
   */
  static from(data: TypedArray | readonly number[], shape?: Shape, options: TensorOptions = {}): Tensor {
    const dtype = options.dtype ?? (data instanceof Int32Array ? 'i32' : 'f32');
    const dims = shape ?? [data.length];
    const count = countOf(data, dtype);
    if (sizeOf(dims) !== count) {
      throw new ShapeError(
        `Tensor.from: expected ${sizeOf(dims)} elements for shape ${showShape(dims)}, got ${count}.`,
      );
    }
    const tensor = Tensor.empty(dims, dtype, options.device ?? currentDevice());
    tensor.write(data);
    tensor.requiresGrad = options.requiresGrad ?? false;
    if (dtype === 'i32') tensor.host = Int32Array.from(data);
    return tensor;
  }

  static full(shape: Shape, value: number, options: TensorOptions = {}): Tensor {
    const host = options.dtype === 'i32' ? new Int32Array(sizeOf(shape)) : new Float32Array(sizeOf(shape));
    return Tensor.from(host.fill(value), shape, options);
  }

  static zeros(shape: Shape, options: TensorOptions = {}): Tensor {
    return Tensor.full(shape, 0, options);
  }

  static ones(shape: Shape, options: TensorOptions = {}): Tensor {
    return Tensor.full(shape, 1, options);
  }

  /** Uniform in [low, high). */
  static uniform(shape: Shape, low: number, high: number, rng: Rng, options: TensorOptions = {}): Tensor {
    const host = new Float32Array(sizeOf(shape));
    for (let i = 0; i < host.length; i++) host[i] = rng.uniform(low, high);
    return Tensor.from(host, shape, options);
  }

  static normal(shape: Shape, std: number, rng: Rng, options: TensorOptions = {}): Tensor {
    const host = new Float32Array(sizeOf(shape));
    for (let i = 0; i < host.length; i++) host[i] = std * rng.normal();
    return Tensor.from(host, shape, options);
  }

  get block(): Block {
    const block = this.#holding.block;
    if (!block) {
      throw new StateError(
        `Tensor ${showShape(this.shape)}: expected a live tensor, got a disposed one. ` +
          'Return it from its scope(), or keep() it, if it is needed later.',
      );
    }
    return block;
  }

  get storage(): Storage {
    return this.block.storage;
  }

  get device(): Backend {
    return this.block.backend;
  }

  get node(): GraphNode | null {
    return this.#holding.node;
  }

  get disposed(): boolean {
    return this.#holding.block === null;
  }

  get size(): number {
    return sizeOf(this.shape);
  }

  get sizeBytes(): number {
    return storageBytes(this.dtype, this.size);
  }

  /** True when a gradient can flow into or through this tensor. */
  get tracksGrad(): boolean {
    return this.requiresGrad || this.#holding.node !== null;
  }

  /** The extents, after checking the rank: `const [b, l, d] = x.dims(3)`. */
  dims(rank: 1): [number];
  dims(rank: 2): [number, number];
  dims(rank: 3): [number, number, number];
  dims(rank: 4): [number, number, number, number];
  dims(rank: 5): [number, number, number, number, number];
  dims(rank: number): number[] {
    if (this.shape.length !== rank) {
      throw new ShapeError(`dims: expected rank ${rank}, got ${showShape(this.shape)}.`);
    }
    return [...this.shape];
  }

  /** Internal (tape.ts): binds this handle to the node that made it. */
  attach(node: GraphNode, outputIndex: number): void {
    node.retain();
    this.#holding.node = node;
    (this as { outputIndex: number }).outputIndex = outputIndex;
  }

  /** Another handle on the same memory, outside the graph; `tracked` ones end with the current scope. */
  alias(shape: Shape = this.shape, offset = this.offset, tracked = true): Tensor {
    return new Tensor(this.block.retain(), shape, this.dtype, offset, tracked);
  }

  /** The same values without their history. */
  detach(): Tensor {
    return this.alias();
  }

  /** Overwrites the values in place; narrow types take what `data()` gives. */
  write(data: TypedArray | readonly number[]): void {
    const count = countOf(data, this.dtype);
    if (count !== this.size) {
      throw new ShapeError(
        `write: expected ${this.size} elements for ${showShape(this.shape)}, got ${count}.`,
      );
    }
    if (count > 0) this.#write(0, data);
    if (this.host) this.host = Int32Array.from(data);
  }

  /** Tells recordings that what they read here is used in another way from now on, so that they end. */
  touch(): void {
    this.device.write(this, this.dtype, hostArray(this.dtype, 0));
  }

  /** Overwrites elements from `at` on (row-major; whole blocks for q8 and q4). */
  writeAt(at: number, data: HostArray): void {
    const count = countOf(data, this.dtype);
    this.#check('writeAt', at, count);
    if (count > 0) this.#write(at, data);
    this.host?.set(data, at);
  }

  /** Copies `count` elements from `at` on to the host, in the form of `data()`. */
  async dataAt(at: number, count: number): Promise<HostArray> {
    this.#check('dataAt', at, count);
    const panels = this.#panels();
    if (panels) return readPanels(panels, at / BLOCK, count / BLOCK);
    return this.device.read({ storage: this.storage, offset: this.offset + at }, this.dtype, count);
  }

  #check(op: string, at: number, count: number): void {
    const { block } = LAYOUTS[this.dtype];
    if (at >= 0 && at + count <= this.size && at % block === 0 && count % block === 0) return;
    throw new ShapeError(
      `${op}: expected elements in [0, ${this.size})${block > 1 ? `, whole blocks of ${block}` : ''}, got ${count} from ${at}.`,
    );
  }

  #write(at: number, data: TypedArray | readonly number[]): void {
    const panels = this.#panels();
    if (panels) writePanels(panels, at / BLOCK, rawStorage(panels.dtype, data) as Uint8Array);
    else this.device.write({ storage: this.storage, offset: this.offset + at }, this.dtype, data);
  }

  /** This tensor as one in panels, where its type has them. */
  #panels(): PanelTensor | null {
    if (!inPanels(this.dtype)) return null;
    return { device: this.device, dtype: this.dtype, d: this.shape.at(-1) ?? 0, at: this };
  }

  /** Copies the values to the host, row-major: f32 as Float32Array, i32 as Int32Array, the others raw. */
  async data(): Promise<HostArray> {
    return this.dataAt(0, this.size);
  }

  /** The values as float32; narrow ones are widened exactly. */
  async floats(): Promise<Float32Array> {
    if (this.dtype === 'i32') throw new DTypeError('floats: expected a floating point type, got i32.');
    return toFloats(await this.data(), this.dtype);
  }

  /** Copies f32 values to where they are wanted; `target` has as many elements. */
  async readInto(target: Float32Array): Promise<void> {
    if (this.dtype !== 'f32') throw new DTypeError(`readInto: expected f32, got ${this.dtype}.`);
    if (target.length !== this.size) {
      throw new ShapeError(`readInto: expected room for ${this.size} elements, got ${target.length}.`);
    }
    await this.device.read(this, 'f32', this.size, target);
  }

  /** The value of a tensor of one element. */
  async item(): Promise<number> {
    if (this.size !== 1) throw new ShapeError(`item: expected one element, got ${showShape(this.shape)}.`);
    return (await this.data())[0]!;
  }

  /** Lets go of the memory now; using the tensor afterwards throws StateError. Twice is harmless. */
  dispose(): void {
    finalizer.unregister(this.#holding);
    letGo(this.#holding);
    this.grad?.dispose();
    this.grad = null;
  }

  toString(): string {
    return `Tensor(${showShape(this.shape)} ${this.dtype}${this.disposed ? ', disposed' : ` on ${this.device.name}`})`;
  }
}

/** Elements that host data holds: a byte of q8 or q4 is not one. */
function countOf(data: TypedArray | readonly number[], dtype: DType): number {
  const { block, bytes } = LAYOUTS[dtype];
  return block > 1 ? (data.length / bytes) * block : data.length;
}
