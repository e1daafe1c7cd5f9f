/** What the generated struct classes stand on: one array of C structs over any ArrayBuffer. */

/** The machine's byte order, for DataView; fields of network order say so themselves. */
export const littleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1

/** The class side of a generated struct array. */
export interface StructArrayClass<T extends StructArray = StructArray> {
  new (buffer: ArrayBuffer, byteOffset?: number, length?: number): T
  /** The C name. */
  readonly struct: string
  /** Bytes of one element. */
  readonly size: number
}

/**
 * An array of structs in memory that others may change, the kernel included. `u8`, `i32`, `u32` and `u64` cover the
 * same bytes as `view`, for Atomics: byte offset / 4 is the index in `u32`. An index out of range throws RangeError.
 */
export abstract class StructArray {
  /** Elements. */
  readonly length: number
  readonly view: DataView<ArrayBuffer>
  readonly u8: Uint8Array<ArrayBuffer>
  readonly i32: Int32Array<ArrayBuffer>
  readonly u32: Uint32Array<ArrayBuffer>
  readonly u64: BigUint64Array<ArrayBuffer>
  readonly #size: number

  /** `byteOffset` must be a multiple of 8; without `length`, as many elements as fit. */
  constructor(buffer: ArrayBuffer, byteOffset = 0, length?: number) {
    this.#size = (new.target as unknown as StructArrayClass).size
    this.length = length ?? Math.floor((buffer.byteLength - byteOffset) / this.#size)
    const bytes = this.length * this.#size
    this.view = new DataView(buffer, byteOffset, bytes)
    this.u8 = new Uint8Array(buffer, byteOffset, bytes)
    this.i32 = new Int32Array(buffer, byteOffset, bytes >> 2)
    this.u32 = new Uint32Array(buffer, byteOffset, bytes >> 2)
    this.u64 = new BigUint64Array(buffer, byteOffset, bytes >> 3)
  }

  /** Zeroes one element. */
  clear(i: number): void {
    this.checkIndex(i)
    this.u8.fill(0, i * this.#size, (i + 1) * this.#size)
  }

  /** Live view of `count` bytes of an element. */
  protected bytes(i: number, offset: number, count: number): Uint8Array<ArrayBuffer> {
    this.checkIndex(i)
    const start = i * this.#size + offset
    return this.u8.subarray(start, start + count)
  }

  /** Copies exactly `count` bytes into an element. */
  protected setBytes(i: number, offset: number, count: number, value: Uint8Array): void {
    if (value.length !== count) throw new RangeError(`${count} bytes expected, not ${value.length}`)
    this.checkIndex(i)
    this.u8.set(value, i * this.#size + offset)
  }

  protected checkIndex(i: number): void {
    if (!(i >= 0 && i < this.length)) throw new RangeError(`index ${i} is not below ${this.length}`)
  }
}

/** Refuses an index into an array inside a struct: past it lies the next field, so nothing else would notice. */
export function checkSlot(n: number, count: number): number {
  if (!(n >= 0 && n < count)) throw new RangeError(`index ${n} is not below ${count}`)
  return n
}
