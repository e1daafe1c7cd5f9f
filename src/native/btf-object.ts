/** The BTF of an object file, read from the opened object. */
import { Btf } from './btf.ts'
import { closeObject, objectBtf, openObject } from './libbpf.ts'

/** Opens the object (no privilege needed), reads its types and closes it. */
export function readObjectBtf(path: string): Btf {
  const object = openObject(path)
  try {
    return Btf.parse(objectBtf(object))
  } finally {
    closeObject(object)
  }
}
