/**
 * Whether token t of a row belongs to another document than the one before it. Token 0 continues the state.
 */
export function startsDocument(sequenceIds: Int32Array | null, token: number, t: number): boolean {
  return sequenceIds !== null && t > 0 && sequenceIds[token] !== sequenceIds[token - 1];
}
