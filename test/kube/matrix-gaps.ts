/** Callers of addresses in the matrix that do not get what they should yet, by variant. */
export const gaps: Readonly<Record<string, readonly string[]>> = {
  packets: ['node nodePort'],
  xdp: ['node nodePort'],
  rules: ['node nodePort'],
  masqueradeAll: ['node nodePort'],
  'all node ports': ['node nodePort-other-address'],
  'mode ipvs': ['node nodePort', 'node nodePort-other-address'],
  bridge: ['node nodePort'],
  'bridge with rules': ['node nodePort'],
  overlay: ['node nodePort'],
}
