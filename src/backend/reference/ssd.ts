/**
 * State space duality (Mamba-2; Dao and Gu 2024, arXiv 2405.21060), one head of one row at a time. A head
 * carries a matrix S (p, n) that decays as a whole: the scan with one number per head and token in place of
 * the matrix A. In r ranks (Mamba-3, MIMO), with a[t] = exp(decay[t]) and w[t] = sum_k x[t,k] B[t,k]^T:
 *
 *   S[t]   = a[t] S[t-1] + scale[t] w[t]
 *   R[t]   = a[t] S[t-1] + own[t] w[t]          what token t reads: S[t], but for its own weight
 *   y[t,k] = R[t] C[t,k] + D x[t,k]
 *
 * Backward, from the last token to the first, with dR[t] = sum_k dy[t,k] C[t,k]^T and the adjoint G of the
 * state:
 *
 *   dC[t,k] += R[t]^T dy[t,k]                   dw[t]   = scale[t] G[t] + own[t] dR[t]
 *   dB[t,k] += dw[t]^T x[t,k]                   dx[t,k] = dw[t] B[t,k] + D dy[t,k]
 *   dscale[t] = <G[t], w[t]>                    down[t] = <dR[t], w[t]>
 *   ddecay[t] = <G[t] + dR[t], a[t] S[t-1]>     G[t-1]  = a[t] (G[t] + dR[t])
 *
 * What the token before token 0 still gives is added to the state that enters. Without `own` it is `scale`,
 * and dscale has both terms. Where a document starts, S[t-1] is 0 and nothing flows back into it. The states
 * are not stored but computed again, chunk by chunk, from the checkpoints of the forward pass.
 */
import type { Kernels } from '../backend.ts';
import { startsDocument } from './documents.ts';
import { type Floats, input, optionalIds, optionalInput, optionalOutput, output } from './storage.ts';

export const ssd = {
  ssd({ b, l, r, h, p, g, n, q, dWidth, ...refs }) {
    const [x, decay, scale] = [input(refs.x), input(refs.decay), input(refs.scale)];
    const [own, D, state] = [optionalInput(refs.own), optionalInput(refs.D), optionalInput(refs.state)];
    const [B, C] = [input(refs.B), input(refs.C)];
    const [lastX, lastB] = [optionalInput(refs.lastX), optionalInput(refs.lastB)];
    const lastWeight = optionalInput(refs.lastWeight);
    const [sequenceIds, lengths] = [optionalIds(refs.sequenceIds), optionalIds(refs.lengths)];
    const [y, stateOut] = [output(refs.y), output(refs.stateOut)];
    const checkpoints = optionalOutput(refs.checkpoints);
    const size = p * n;
    const [S, R, w] = [new Float64Array(size), new Float64Array(size), new Float64Array(size)];

    for (let row = 0; row < b; row++) {
      const length = lengths ? lengths[row]! : l;
      for (let head = 0; head < h; head++) {
        const group = Math.floor(head / (h / g));
        for (let i = 0; i < size; i++) S[i] = state ? state[(row * h + head) * size + i]! : 0;
        if (lastX && lastB && lastWeight && length > 0) {
          w.fill(0);
          for (let k = 0; k < r; k++) {
            const rank = row * r + k;
            addOuter(w, vector(lastX, rank * h + head, p), vector(lastB, rank * g + group, n));
          }
          for (let i = 0; i < size; i++) S[i]! += lastWeight[row * h + head]! * w[i]!;
        }
        for (let t = 0; t < l; t++) {
          const token = row * l + t;
          if (t % q === 0) {
            // As if the row were cut here, so that one that is cut here gives the same bits.
            const left = vector(stateOut, row * h + head, size);
            left.set(S);
            S.set(left);
            checkpoints?.set(S, ((row * Math.ceil(l / q) + t / q) * h + head) * size);
          }
          if (t < length) {
            const at = token * h + head;
            if (startsDocument(sequenceIds, token, t)) S.fill(0);
            w.fill(0);
            for (let k = 0; k < r; k++) {
              const rank = token * r + k;
              addOuter(w, vector(x, rank * h + head, p), vector(B, rank * g + group, n));
            }
            for (let i = 0; i < size; i++) {
              const carried = Math.exp(decay[at]!) * S[i]!;
              S[i] = carried + scale[at]! * w[i]!;
              R[i] = own ? carried + own[at]! * w[i]! : S[i]!;
            }
          }
          for (let k = 0; k < r; k++) {
            const rank = token * r + k;
            const [xs, ys] = [vector(x, rank * h + head, p), vector(y, rank * h + head, p)];
            if (t >= length) {
              ys.fill(0);
              continue;
            }
            const read = product(R, vector(C, rank * g + group, n), p);
            for (let i = 0; i < p; i++) {
              ys[i] = read[i]! + (D ? D[dWidth === 1 ? head : head * p + i]! * xs[i]! : 0);
            }
          }
        }
        stateOut.set(S, (row * h + head) * size);
      }
    }
  },

  ssdGrad({ b, l, r, h, p, g, n, q, dWidth, ...refs }) {
    const [x, decay, scale] = [input(refs.x), input(refs.decay), input(refs.scale)];
    const [own, D] = [optionalInput(refs.own), optionalInput(refs.D)];
    const [B, C] = [input(refs.B), input(refs.C)];
    const [sequenceIds, lengths] = [optionalIds(refs.sequenceIds), optionalIds(refs.lengths)];
    const [checkpoints, dy] = [input(refs.checkpoints), input(refs.dy)];
    const dstateOut = optionalInput(refs.dstateOut);
    const [dx, ddecay, dscale] = [output(refs.dx), output(refs.ddecay), output(refs.dscale)];
    const [down, dstate] = [optionalOutput(refs.down), optionalOutput(refs.dstate)];
    // Sums over the heads of a group, or over tokens, grow here in float64 and are stored at the end.
    const [dB, dC] = [new Float64Array(b * l * r * g * n), new Float64Array(b * l * r * g * n)];
    const dD = new Float64Array(h * dWidth);
    const size = p * n;
    const steps = Math.min(q, l);
    const states = new Float64Array((steps + 1) * size); // states[s] before step s of a chunk
    const writes = new Float64Array(steps * size); // w of each step
    const [G, R] = [new Float64Array(size), new Float64Array(size)];
    const [dR, dw] = [new Float64Array(size), new Float64Array(size)];

    for (let row = 0; row < b; row++) {
      const length = lengths ? lengths[row]! : l;
      for (let head = 0; head < h; head++) {
        const group = Math.floor(head / (h / g));
        for (let i = 0; i < size; i++) G[i] = dstateOut ? dstateOut[(row * h + head) * size + i]! : 0;
        for (let token = row * l + length; token < (row + 1) * l; token++) {
          for (let k = 0; k < r; k++) vector(dx, (token * r + k) * h + head, p).fill(0);
          ddecay[token * h + head] = 0;
          dscale[token * h + head] = 0;
          if (down) down[token * h + head] = 0;
        }
        for (let chunk = Math.ceil(length / q) - 1; chunk >= 0; chunk--) {
          const start = chunk * q;
          const end = Math.min(start + q, length);

          // Forward through the chunk.
          states.set(vector(checkpoints, (row * Math.ceil(l / q) + chunk) * h + head, size));
          for (let t = start; t < end; t++) {
            const token = row * l + t;
            const [before, after] = [vector(states, t - start, size), vector(states, t - start + 1, size)];
            const w = vector(writes, t - start, size).fill(0);
            for (let k = 0; k < r; k++) {
              const rank = token * r + k;
              addOuter(w, vector(x, rank * h + head, p), vector(B, rank * g + group, n));
            }
            // Kept with the document's start in it: the state that decays.
            if (startsDocument(sequenceIds, token, t)) before.fill(0);
            const at = token * h + head;
            for (let i = 0; i < size; i++) {
              after[i] = Math.exp(decay[at]!) * before[i]! + scale[at]! * w[i]!;
            }
          }

          // Backward through the chunk.
          for (let t = end - 1; t >= start; t--) {
            const token = row * l + t;
            const at = token * h + head;
            const [before, w] = [vector(states, t - start, size), vector(writes, t - start, size)];
            const a = Math.exp(decay[at]!);
            const self = own ? own[at]! : scale[at]!;
            dR.fill(0);
            for (let k = 0; k < r; k++) {
              const rank = token * r + k;
              addOuter(dR, vector(dy, rank * h + head, p), vector(C, rank * g + group, n));
            }
            let [dDecay, dScale, dOwn] = [0, 0, 0];
            for (let i = 0; i < size; i++) {
              R[i] = a * before[i]! + self * w[i]!;
              dw[i] = scale[at]! * G[i]! + self * dR[i]!;
              dDecay += (G[i]! + dR[i]!) * a * before[i]!;
              dScale += G[i]! * w[i]!;
              dOwn += dR[i]! * w[i]!;
            }
            ddecay[at] = dDecay;
            dscale[at] = own ? dScale : dScale + dOwn;
            if (down) down[at] = dOwn;
            for (let k = 0; k < r; k++) {
              const rank = token * r + k;
              const [xs, dys] = [vector(x, rank * h + head, p), vector(dy, rank * h + head, p)];
              addProduct(vector(dC, rank * g + group, n), R, dys);
              addProduct(vector(dB, rank * g + group, n), dw, xs);
              const dxs = vector(dx, rank * h + head, p);
              const back = product(dw, vector(B, rank * g + group, n), p);
              for (let i = 0; i < p; i++) {
                const skip = dWidth === 1 ? head : head * p + i;
                dxs[i] = back[i]! + (D ? D[skip]! * dys[i]! : 0);
                dD[skip]! += dys[i]! * xs[i]!;
              }
            }
            const fresh = startsDocument(sequenceIds, token, t);
            for (let i = 0; i < size; i++) G[i] = fresh ? 0 : a * (G[i]! + dR[i]!);
          }
        }
        dstate?.set(G, (row * h + head) * size);
      }
    }
    output(refs.dB).set(dB);
    output(refs.dC).set(dC);
    optionalOutput(refs.dD)?.set(dD);
  },
} satisfies Partial<Kernels>;

/** Vector i of an array of vectors of `size` elements. */
function vector<T extends Floats>(array: T, i: number, size: number): T {
  return array.subarray(i * size, (i + 1) * size) as T;
}

/** M (p, n) += u (p) v (n)^T. */
function addOuter(M: Float64Array, u: Floats, v: Floats): void {
  for (let i = 0; i < u.length; i++) {
    for (let j = 0; j < v.length; j++) M[i * v.length + j]! += u[i]! * v[j]!;
  }
}

/** M (p, n) v (n). */
function product(M: Float64Array, v: Floats, p: number): Float64Array {
  const y = new Float64Array(p);
  for (let i = 0; i < p; i++) {
    for (let j = 0; j < v.length; j++) y[i]! += M[i * v.length + j]! * v[j]!;
  }
  return y;
}

/** y (n) += M (p, n)^T u (p). */
function addProduct(y: Float64Array, M: Float64Array, u: Floats): void {
  for (let i = 0; i < u.length; i++) {
    for (let j = 0; j < y.length; j++) y[j]! += M[i * y.length + j]! * u[i]!;
  }
}
