/** Are ranges of cells apart from each other, and is none lost? */
import { readAudience } from '../maps/audience.ts'
import { orderFor } from '../maps/lists.ts'
import { CELL_ORDERS, listRanges } from '../maps/free-cells.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { listedServices } from './views.ts'

/** Violations among lists in force, retired and free ranges. */
export function checkCells(maps: TableMaps): string[] {
  const { book, cells, services } = maps
  const map = new RangeMap(maps)
  let used = 0
  for (const id of listedServices(maps)) {
    for (const { part, start, order } of listRanges(cells, services.list(id))) {
      used += 2 ** order
      map.add(start, order, `${part} of service ${id}`)
    }
  }
  const retired = map.addRetired(book.cellRetired(0))
  for (let order = 0; order < CELL_ORDERS; order++) map.addFree(book.cellFree(0, order), order)
  if (used !== book.cellsUsed(0)) map.found.push(`${used} cells are in use, lb_book says ${book.cellsUsed(0)}`)
  if (retired !== book.cellsRetired(0)) {
    map.found.push(`${retired} cells are retired, lb_book says ${book.cellsRetired(0)}`)
  }
  map.checkComplete(Math.max(book.cellHigh(0), 1))
  return [...map.found, ...checkOrders(maps)]
}

function checkOrders(maps: TableMaps): string[] {
  const found: string[] = []
  for (const id of listedServices(maps)) {
    const cell = maps.services.list(id)
    const due = orderFor(maps.cells.listCount(cell), readAudience(maps.cells, cell) !== undefined)
    if (maps.cells.listOrder(cell) !== due) {
      found.push(`list of service ${id} is of order ${maps.cells.listOrder(cell)}, not ${due}`)
    }
  }
  return found
}

/** Which cells are taken. */
class RangeMap {
  readonly found: string[] = []
  readonly #maps: TableMaps
  readonly #taken: Uint8Array

  constructor(maps: TableMaps) {
    this.#maps = maps
    this.#taken = new Uint8Array(maps.cells.length)
  }

  /** False if it cannot be a range, or overlaps another. */
  add(cell: number, order: number, what: string): boolean {
    const size = 2 ** order
    if (cell === 0 || cell % size !== 0 || cell + size > this.#taken.length) {
      this.found.push(`${what}: ${size} cells at ${cell} are no range`)
      return false
    }
    const overlap = this.#taken.subarray(cell, cell + size).indexOf(1)
    if (overlap >= 0) this.found.push(`${what}: cell ${cell + overlap} of the range at ${cell} is in another range too`)
    this.#taken.fill(1, cell, cell + size)
    return overlap < 0
  }

  /** Ranges of retired lists; returns their cells. */
  addRetired(head: number): number {
    const { cells } = this.#maps
    let sum = 0
    for (let cell = head; cell !== 0 && cell < cells.length; cell = cells.listNext(cell)) {
      for (const { start, order } of listRanges(cells, cell)) {
        if (!this.add(start, order, 'retired')) return sum
        sum += 2 ** order
      }
    }
    return sum
  }

  addFree(head: number, order: number): void {
    const { cells } = this.#maps
    const what = `free of order ${order}`
    for (let cell = head; cell !== 0; cell = cells.listNext(cell)) {
      if (cell >= cells.length || !this.add(cell, cells.listOrder(cell), what)) return
      if (cells.listOrder(cell) !== order) this.found.push(`${what}: the range at ${cell} is of another order`)
    }
  }

  checkComplete(high: number): void {
    const lost = this.#taken.subarray(1, high).indexOf(0)
    if (lost >= 0) this.found.push(`cell ${lost + 1} is neither in use, nor retired, nor free`)
    const above = this.#taken.subarray(high).indexOf(1)
    if (above >= 0) this.found.push(`cell ${high + above} is in use though cells from ${high} on were never given out`)
  }
}
