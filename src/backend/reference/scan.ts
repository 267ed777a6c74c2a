/**
 * The selective scan of Mamba-1 (Gu and Dao 2023, algorithm 2), one channel c of one row at a
 * time. Every token has its own step size dt and its own B and C; that is the selection. With dt
 * = softplus(delta + deltaBias):
 *
 *   h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t]          n numbers of memory, decaying at n rates
 *   y[t] = (C[t] . h[t] + D u[t]) * silu(z[t])            read out, skip connection, gate
 *
 * Backward, from the last token to the first, with a[t] = exp(dt[t] A) and q[t] = dy[t] silu(z[t]). The
 * adjoint g of the state obeys the same recurrence, run backward:
 *
 *   g[t]    = C[t] q[t] + a[t+1] g[t+1]
 *   dC[t]  += q[t] h[t]                       dz[t] = dy[t] (C[t] . h[t] + D u[t]) silu'(z[t])
 *   dB[t]  += g[t] dt[t] u[t]                 du[t] = D q[t] + dt[t] (B[t] . g[t])
 *   dA     += g[t] a[t] h[t-1] dt[t]          dD   += q[t] u[t]
 *   ddt[t]  = sum_n g[t] (a[t] h[t-1] A + B[t] u[t]),   ddelta = ddt softplus'(delta + deltaBias)
 *
 * Where a document starts, h[t-1] is 0 and nothing flows back into it. The states h[t] are not stored but
 * computed again, chunk by chunk, from the checkpoints of the forward pass.
 */
import type { Kernels } from '../backend.ts';
import { SCAN_CHUNK } from '../kernels.ts';
import { startsDocument } from './documents.ts';
import { silu, siluGrad, softplusGrad, softplus as softplusOf } from './math.ts';
import { input, optionalIds, optionalInput, optionalOutput, output } from './storage.ts';

export const scan = {
  selectiveScan({ b, l, e, n, bGroups, cGroups, softplus, ...refs }) {
    const [u, delta, A] = [input(refs.u), input(refs.delta), input(refs.A)];
    const [B, C] = [input(refs.B), input(refs.C)];
    const [D, z] = [optionalInput(refs.D), optionalInput(refs.z)];
    const [deltaBias, state] = [optionalInput(refs.deltaBias), optionalInput(refs.state)];
    const [sequenceIds, lengths] = [optionalIds(refs.sequenceIds), optionalIds(refs.lengths)];
    const [y, stateOut, checkpoints] = [
      output(refs.y),
      output(refs.stateOut),
      optionalOutput(refs.checkpoints),
    ];
    const chunks = Math.ceil(l / SCAN_CHUNK);
    const h = new Float64Array(n);

    for (let row = 0; row < b; row++) {
      const length = lengths ? lengths[row]! : l;
      for (let c = 0; c < e; c++) {
        for (let i = 0; i < n; i++) h[i] = state ? state[(row * e + c) * n + i]! : 0;
        for (let t = 0; t < l; t++) {
          if (checkpoints && t % SCAN_CHUNK === 0) {
            checkpoints.set(h, ((row * chunks + t / SCAN_CHUNK) * e + c) * n);
          }
          const token = row * l + t;
          const at = token * e + c;
          if (t >= length) {
            y[at] = 0;
            continue;
          }
          if (startsDocument(sequenceIds, token, t)) h.fill(0);
          const raw = delta[at]! + (deltaBias ? deltaBias[c]! : 0);
          const dt = softplus ? softplusOf(raw) : raw;
          const bAt = groupOffset(bGroups, token, c, e, n);
          const cAt = groupOffset(cGroups, token, c, e, n);
          let read = D ? D[c]! * u[at]! : 0;
          for (let i = 0; i < n; i++) {
            h[i] = Math.exp(dt * A[c * n + i]!) * h[i]! + dt * B[bAt + i]! * u[at]!;
            read += C[cAt + i]! * h[i]!;
          }
          y[at] = z ? read * silu(z[at]!) : read;
        }
        stateOut.set(h, (row * e + c) * n);
      }
    }
  },

  selectiveScanGrad({ b, l, e, n, bGroups, cGroups, softplus, ...refs }) {
    const [u, delta, A] = [input(refs.u), input(refs.delta), input(refs.A)];
    const [B, C] = [input(refs.B), input(refs.C)];
    const [D, z, deltaBias] = [optionalInput(refs.D), optionalInput(refs.z), optionalInput(refs.deltaBias)];
    const [sequenceIds, lengths] = [optionalIds(refs.sequenceIds), optionalIds(refs.lengths)];
    const [checkpoints, dy, dstateOut] = [
      input(refs.checkpoints),
      input(refs.dy),
      optionalInput(refs.dstateOut),
    ];
    const [du, ddelta] = [output(refs.du), output(refs.ddelta)];
    const [dz, dstate] = [optionalOutput(refs.dz), optionalOutput(refs.dstate)];
    // Sums over tokens, rows or channels grow here in float64 and are stored at the end.
    const dA = new Float64Array(e * n);
    const dB = new Float64Array(bGroups === 0 ? e * n : b * l * bGroups * n);
    const dC = new Float64Array(cGroups === 0 ? e * n : b * l * cGroups * n);
    const dD = new Float64Array(e);
    const ddeltaBias = new Float64Array(e);
    const chunks = Math.ceil(l / SCAN_CHUNK);
    const states = new Float64Array((SCAN_CHUNK + 1) * n); // states[s] before step s of a chunk, states[s + 1] after it
    const carried = new Float64Array(n); // a[t+1] g[t+1]

    for (let row = 0; row < b; row++) {
      const length = lengths ? lengths[row]! : l;
      for (let c = 0; c < e; c++) {
        for (let i = 0; i < n; i++) carried[i] = dstateOut ? dstateOut[(row * e + c) * n + i]! : 0;
        for (let t = length; t < l; t++) {
          const at = (row * l + t) * e + c;
          du[at] = 0;
          ddelta[at] = 0;
          if (dz) dz[at] = 0;
        }
        for (let chunk = Math.ceil(length / SCAN_CHUNK) - 1; chunk >= 0; chunk--) {
          const start = chunk * SCAN_CHUNK;
          const steps = Math.min(SCAN_CHUNK, length - start);
          const saved = ((row * chunks + chunk) * e + c) * n;
          for (let i = 0; i < n; i++) states[i] = checkpoints[saved + i]!;

          // Forward through the chunk.
          for (let s = 0; s < steps; s++) {
            const token = row * l + start + s;
            const at = token * e + c;
            const fresh = startsDocument(sequenceIds, token, start + s);
            const raw = delta[at]! + (deltaBias ? deltaBias[c]! : 0);
            const dt = softplus ? softplusOf(raw) : raw;
            const bAt = groupOffset(bGroups, token, c, e, n);
            for (let i = 0; i < n; i++) {
              const decay = Math.exp(dt * A[c * n + i]!);
              const before = fresh ? 0 : states[s * n + i]!;
              states[(s + 1) * n + i] = decay * before + dt * B[bAt + i]! * u[at]!;
            }
          }

          // Backward through the chunk.
          for (let s = steps - 1; s >= 0; s--) {
            const token = row * l + start + s;
            const at = token * e + c;
            const raw = delta[at]! + (deltaBias ? deltaBias[c]! : 0);
            const dt = softplus ? softplusOf(raw) : raw;
            const bAt = groupOffset(bGroups, token, c, e, n);
            const cAt = groupOffset(cGroups, token, c, e, n);
            const fresh = startsDocument(sequenceIds, token, start + s);
            const q = dy[at]! * (z ? silu(z[at]!) : 1);
            let read = D ? D[c]! * u[at]! : 0; // C . h + D u
            let written = 0; // B . g
            let ddt = 0;
            for (let i = 0; i < n; i++) {
              const before = fresh ? 0 : states[s * n + i]!;
              const after = states[(s + 1) * n + i]!;
              const decay = Math.exp(dt * A[c * n + i]!);
              const g = C[cAt + i]! * q + carried[i]!;
              read += C[cAt + i]! * after;
              written += B[bAt + i]! * g;
              ddt += g * (decay * before * A[c * n + i]! + B[bAt + i]! * u[at]!);
              dC[cAt + i]! += q * after;
              dB[bAt + i]! += g * dt * u[at]!;
              dA[c * n + i]! += g * decay * before * dt;
              carried[i] = fresh ? 0 : decay * g;
            }
            const draw = softplus ? ddt * softplusGrad(raw) : ddt;
            ddeltaBias[c]! += draw;
            dD[c]! += q * u[at]!;
            if (dz && z) dz[at] = dy[at]! * read * siluGrad(z[at]!);
            ddelta[at] = draw;
            du[at] = q * (D ? D[c]! : 0) + dt * written;
          }
        }
        dstate?.set(carried, (row * e + c) * n);
      }
    }
    output(refs.dA).set(dA);
    output(refs.dB).set(dB);
    output(refs.dC).set(dC);
    optionalOutput(refs.dD)?.set(dD);
    optionalOutput(refs.ddeltaBias)?.set(ddeltaBias);
  },
} satisfies Partial<Kernels>;

/** Where channel c of a token finds its B or C: (e, n) when constant (no groups), else (b, l, g, n). */
function groupOffset(groups: number, token: number, c: number, e: number, n: number): number {
  return groups === 0 ? c * n : (token * groups + Math.floor(c / (e / groups))) * n;
}
