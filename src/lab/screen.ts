/** A terminal that is redrawn in place, on its alternate screen; what was there before comes back on close(). */
import type { WriteStream } from 'node:tty'
import type { Size } from './view.ts'

const enter = '\x1b[?1049h\x1b[?25l'
/** Gives a terminal back as it was. */
export const leave = '\x1b[?25h\x1b[?1049l'
const home = '\x1b[H'
const clearLine = '\x1b[K'
const clearBelow = '\x1b[J'

export class Screen {
  readonly #stream: WriteStream
  #open = false

  constructor(stream: WriteStream) {
    this.#stream = stream
  }

  get size(): Size {
    return { columns: this.#stream.columns || 80, rows: this.#stream.rows || 24 }
  }

  /** Shows lines from the top; each replaces the one that was there, so nothing flickers. */
  draw(lines: readonly string[]): void {
    const text = lines.map((line) => `${line}${clearLine}`).join('\r\n')
    this.#stream.write(`${this.#open ? '' : enter}${home}${text}${clearBelow}`)
    this.#open = true
  }

  close(): void {
    if (this.#open) this.#stream.write(leave)
    this.#open = false
  }
}
