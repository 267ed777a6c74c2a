/**
 * The gradient graph, defined by running. Every recorded op makes a Node that holds references to what
 * its gradient rule needs; backward() visits nodes from the newest to the oldest and frees each node's
 * memory as soon as it has been used.
 */
import { ShapeError, StateError } from '../base/errors.ts';
import { sameShape, showShape } from '../base/shape.ts';
import { currentPrecision, withPrecision } from './precision.ts';
import * as raw from './raw.ts';
import { scope } from './scope.ts';
import type { GraphNode, Tensor } from './tensor.ts';

export type Saved = Record<string, Tensor | null>;
/**
 * Gradients of the inputs, in their order; null where none flows. `needs[i]` tells which are wanted.
 * `sums[i]` is what input i has gathered from other ops, where a rule may add its share in place and return
 * it; null where there is nothing yet, or somebody else reads it.
 */
export type GradRule<S extends Saved> = (
  douts: readonly (Tensor | null)[],
  saved: S,
  needs: readonly boolean[],
  sums: readonly (Tensor | null)[],
) => (Tensor | null)[];

/** A rule with what it has saved. */
type BoundRule = (douts: readonly (Tensor | null)[], sums: readonly (Tensor | null)[]) => (Tensor | null)[];

let enabled = true;
let sequence = 0;

/** True while operations are recorded. */
export function gradEnabled(): boolean {
  return enabled;
}

function withGrad<T>(on: boolean, fn: () => T): T {
  const before = enabled;
  enabled = on;
  try {
    return fn();
  } finally {
    enabled = before;
  }
}

/** Runs `fn` without recording: nothing is kept for a backward pass. */
export function noGrad<T>(fn: () => T): T {
  return withGrad(false, fn);
}

/** Whether an op over these inputs will be recorded. */
export function needsGrad(inputs: readonly (Tensor | null)[]): boolean {
  return enabled && inputs.some((input) => input?.tracksGrad ?? false);
}

class Node implements GraphNode {
  readonly op: string;
  readonly id = sequence++;
  /** Producers of the inputs, or the leaf itself, or null where no gradient is wanted. */
  inputs: ({ node: Node; output: number } | { leaf: Tensor } | null)[];
  grads: (Tensor | null)[];
  #rule: BoundRule | null;
  #saved: Saved;
  #refs = 0;

  constructor(op: string, inputs: readonly (Tensor | null)[], outputCount: number, saved: Saved) {
    this.op = op;
    this.grads = new Array<Tensor | null>(outputCount).fill(null);
    this.inputs = inputs.map((input) => {
      if (!input?.tracksGrad) return null;
      if (!input.node) return { leaf: input };
      input.node.retain();
      return { node: input.node as Node, output: input.outputIndex };
    });
    this.#rule = null;
    this.#saved = saved;
  }

  setRule(rule: BoundRule): void {
    this.#rule = rule;
  }

  run(sums: readonly (Tensor | null)[]): (Tensor | null)[] {
    if (!this.#rule) {
      throw new StateError(
        `backward: the graph of ${this.op} was used before and is freed. Run the forward pass again.`,
      );
    }
    return this.#rule(this.grads, sums);
  }

  retain(): void {
    this.#refs++;
  }

  release(): void {
    if (--this.#refs === 0) this.free();
  }

  /** Lets go of saved tensors, gradients and producers. */
  free(): void {
    this.#rule = null;
    for (const tensor of Object.values(this.#saved)) tensor?.dispose();
    this.#saved = {};
    for (const grad of this.grads) grad?.dispose();
    this.grads = this.grads.map(() => null);
    const inputs = this.inputs;
    this.inputs = [];
    for (const input of inputs) if (input && 'node' in input) input.node.release();
  }
}

/**
 * Records an op for backward(), when any input takes part in the graph. `saved` are the tensors the rule will
 * read; the tape keeps them alive by itself. Integer inputs are passed as null.
 */
export function record<S extends Saved>(
  op: string,
  inputs: readonly (Tensor | null)[],
  outputs: readonly Tensor[],
  saved: S,
  rule: GradRule<S>,
): void {
  if (!needsGrad(inputs)) return;
  const held = Object.fromEntries(
    Object.entries(saved).map(([name, tensor]) => [
      name,
      tensor?.alias(tensor.shape, tensor.offset, false) ?? null,
    ]),
  ) as S;
  const needs = inputs.map((input) => input?.tracksGrad ?? false);
  const node = new Node(op, inputs, outputs.length, held);
  node.setRule((douts, sums) => rule(douts, held, needs, sums));
  outputs.forEach((output, i) => {
    output.attach(node, i);
  });
}

/**
 * Adds `grad` to `total`, in place when nobody else reads it; returns the handle
 * that now owns the sum (untracked).
 */
function accumulate(total: Tensor | null, grad: Tensor): Tensor {
  if (!total) return grad.alias(grad.shape, grad.offset, false);
  if (total.block.refs === 1) {
    raw.axpy(grad, total, 1);
    return total;
  }
  const sum = raw.binary('add', total, grad);
  total.dispose();
  return sum.alias(sum.shape, sum.offset, false);
}

/**
 * Propagates `gradient` (ones for a scalar) from `output` to every leaf with requiresGrad, adding to its
 * `.grad`. Frees the graph on the way. Throws StateError when there is no graph.
 */
export function backward(output: Tensor, gradient?: Tensor): void {
  backwardFrom([output], [gradient ?? null]);
}

/** backward() from several outputs at once. A null gradient means ones, for scalars only. */
export function backwardFrom(outputs: readonly Tensor[], gradients: readonly (Tensor | null)[]): void {
  const roots: Node[] = [];
  noGrad(() =>
    scope(() => {
      outputs.forEach((output, i) => {
        const given = gradients[i] ?? null;
        const node = output.node as Node | null;
        if (!node) {
          throw new StateError(
            'backward: expected a tensor computed from one with requiresGrad, got one without a graph.',
          );
        }
        if (!given && output.size !== 1) {
          throw new ShapeError(
            `backward: expected a scalar, got ${showShape(output.shape)}. Pass its gradient.`,
          );
        }
        if (given && !sameShape(given.shape, output.shape)) {
          throw new ShapeError(
            `backward: expected a gradient of ${showShape(output.shape)}, got ${showShape(given.shape)}.`,
          );
        }
        const seed = given ?? raw.full(output.shape, 1, output.device);
        node.grads[output.outputIndex] = accumulate(node.grads[output.outputIndex] ?? null, seed);
        roots.push(node);
      });
    }),
  );
  const order = reachable(roots);
  // Hold every node while its consumers are freed, so that release() cascades only after it has run.
  for (const node of order) node.retain();
  try {
    noGrad(() => {
      for (const node of order) {
        scope(() => propagate(node));
        node.free();
      }
    });
  } finally {
    for (const node of order) node.release();
  }
}

function reachable(roots: readonly Node[]): Node[] {
  const seen = new Set<Node>(roots);
  const pending = [...roots];
  for (let node = pending.pop(); node; node = pending.pop()) {
    for (const input of node.inputs) {
      if (input && 'node' in input && !seen.has(input.node)) {
        seen.add(input.node);
        pending.push(input.node);
      }
    }
  }
  return [...seen].sort((a, b) => b.id - a.id);
}

function propagate(node: Node): void {
  if (node.grads.every((grad) => grad === null)) return;
  const sums = node.inputs.map((input) => {
    const sum = input && ('leaf' in input ? input.leaf.grad : (input.node.grads[input.output] ?? null));
    return sum?.block.refs === 1 ? sum : null;
  });
  const grads = node.run(sums);
  node.inputs.forEach((input, i) => {
    const grad = grads[i];
    if (!input || !grad || grad === sums[i]) return;
    if ('leaf' in input) input.leaf.grad = accumulate(input.leaf.grad, grad);
    else input.node.grads[input.output] = accumulate(input.node.grads[input.output] ?? null, grad);
  });
}

/**
 * Gradient checkpointing: runs `fn` without keeping its intermediates and runs it again,
 * in the same precision, during backward(). `fn` must be deterministic; parameters it
 * captures receive their gradients too.
 */
export function recompute(fn: (...inputs: Tensor[]) => Tensor[], inputs: Tensor[]): Tensor[] {
  if (!enabled) return fn(...inputs);
  const outputs = noGrad(() => scope(() => fn(...inputs).map((output) => output.alias())));
  const saved = Object.fromEntries(
    inputs.map((input, i) => [`${i}`, input.alias(input.shape, input.offset, false)]),
  );
  const node = new Node('recompute', inputs, outputs.length, saved);
  const wants = inputs.map((input) => input.tracksGrad);
  const hosts = inputs.map(({ host }) => host); // of ids, which fn may read
  const precision = currentPrecision();
  node.setRule((douts) =>
    withGrad(true, () => {
      const again = inputs.map((_, i) => saved[`${i}`]!.detach());
      again.forEach((input, i) => {
        input.requiresGrad = wants[i]!;
        input.host = hosts[i]!;
      });
      const results = withPrecision(precision, () => scope(() => fn(...again)));
      const live = results
        .map((result, i) => ({ result, grad: douts[i] ?? null }))
        .filter(({ result, grad }) => grad && result.node);
      backwardFrom(
        live.map(({ result }) => result),
        live.map(({ grad }) => grad),
      );
      return again.map((input) => input.grad?.alias() ?? null);
    }),
  );
  outputs.forEach((output, i) => {
    output.attach(node, i);
  });
  return outputs;
}
