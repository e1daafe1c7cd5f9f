/** Of client-node what is used, and nothing else: the rest of the package is generated code, tens of megabytes of it. */
export { KubeConfig } from '@kubernetes/client-node'
