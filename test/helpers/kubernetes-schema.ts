/**
 * The schema of the Kubernetes API as its own client has it: client-node's models are made of the API's OpenAPI
 * description, and say of each type which fields there are and of what type. Which are required they do not say.
 */
import * as models from '@kubernetes/client-node'

interface Attribute {
  readonly baseName: string
  readonly type: string
}
interface Model {
  getAttributeTypeMap(): readonly Attribute[]
}

/** Type of an object: `V1DaemonSet` of apps/v1 DaemonSet; undefined: we know no such kind in that version. */
export function typeOfKind(apiVersion: string, kind: string): string | undefined {
  return new Map([
    ['v1 ServiceAccount', 'V1ServiceAccount'],
    ['v1 ConfigMap', 'V1ConfigMap'],
    ['apps/v1 DaemonSet', 'V1DaemonSet'],
    ['rbac.authorization.k8s.io/v1 ClusterRole', 'V1ClusterRole'],
    ['rbac.authorization.k8s.io/v1 ClusterRoleBinding', 'V1ClusterRoleBinding'],
  ]).get(`${apiVersion} ${kind}`)
}

const isFields = (value: unknown): value is Readonly<Record<string, unknown>> => {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What is wrong with a value of a type, each with its path; nothing, if nothing is. */
export function problemsOf(value: unknown, type: string, path = ''): string[] {
  const [, item] = /^Array<(.*)>$/.exec(type) ?? []
  if (item !== undefined) {
    if (!Array.isArray(value)) return [`${path}: not a list`]
    return value.flatMap((each, index) => problemsOf(each, item, `${path}[${index}]`))
  }
  const [, field] = /^\{ \[key: string\]: (.*); \}$/.exec(type) ?? []
  if (field !== undefined) {
    if (!isFields(value)) return [`${path}: not a map`]
    return Object.entries(value).flatMap(([key, each]) => problemsOf(each, field, `${path}.${key}`))
  }
  if (type === 'IntOrString') return isScalar(value, ['number', 'string'], path)
  if (['string', 'number', 'boolean'].includes(type)) return isScalar(value, [type], path)
  return problemsOfModel(value, type, path)
}

function isScalar(value: unknown, types: readonly string[], path: string): string[] {
  return types.includes(typeof value) ? [] : [`${path}: ${JSON.stringify(value)} is no ${types.join(' or ')}`]
}

function problemsOfModel(value: unknown, type: string, path: string): string[] {
  const model = (models as unknown as Readonly<Record<string, Model | undefined>>)[type]
  if (model === undefined) throw new Error(`client-node has no type ${type}`)
  if (!isFields(value)) return [`${path}: not a ${type}`]
  const attributes = model.getAttributeTypeMap()
  return Object.entries(value).flatMap(([name, each]) => {
    const attribute = attributes.find(({ baseName }) => baseName === name)
    return attribute === undefined
      ? [`${path}.${name}: ${type} has no such field`]
      : problemsOf(each, attribute.type, `${path}.${name}`)
  })
}
