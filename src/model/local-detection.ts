/** How packets of this node's pods are told from others: kube-proxy's detectLocalMode. */
export type LocalDetection =
  /** By the cluster's networks of pods; nothing is known of a family that has none. */
  | { readonly by: 'cluster'; readonly cidrs: readonly string[] }
  /** By those that the Node says. */
  | { readonly by: 'node' }
  /** They come in by this bridge. */
  | { readonly by: 'bridge'; readonly name: string }
  /** They come in by interfaces whose names begin so. */
  | { readonly by: 'interfaces'; readonly prefix: string }
