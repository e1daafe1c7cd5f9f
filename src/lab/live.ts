/** The interactive lab: steady traffic and a picture of it, once a second, until it is told to end. */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { LbError } from '../model/errors.ts'
import { isAtLeast, type LogLine } from './bpvsd.ts'
import type { Lab } from './lab.ts'
import type { Style } from './style.ts'
import type { Report } from './tally.ts'
import { type LabState, renderLines, renderScreen, type Size } from './view.ts'

/** Where the picture goes: a screen that is redrawn, or lines that follow each other. */
export interface LiveOutput {
  readonly style: Style
  /** Undefined when the output cannot be redrawn. */
  readonly screen: { readonly size: Size; draw(lines: readonly string[]): void } | undefined
  line(text: string): void
}

/** Requests per second of one client to one virtual service. */
const ratePerSecond = 12
const intervalMs = 1_000
/** Time between the end of a bpvsd and the start of the next, to see that traffic does without. */
const restartMs = 3_000
/** Without a screen, the listing is printed every so many seconds. */
const listingEveryS = 10

export class Live {
  readonly #lab: Lab
  readonly #output: LiveOutput
  #started = performance.now()
  readonly #log: LogLine[] = []
  #bpvsd = { text: 'starting', well: false }
  #sent = 0
  #failed = 0
  #measured = this.#started

  constructor(lab: Lab, output: LiveOutput) {
    this.#lab = lab
    this.#output = output
  }

  /** A line of bpvsd's log: what is worth knowing stays on the screen. */
  log(line: LogLine): void {
    const solved = line.level === 'info' && /solved/.test(line.text)
    if (!isAtLeast(line.level, 'warn') && !solved) return
    this.#log.push(line)
    if (this.#log.length > 3) this.#log.shift()
    if (this.#output.screen === undefined) this.#output.line(`      bpvsd: ${line.text}`)
  }

  /** Shows what happens until the signal. Rejects when something of the lab itself fails. */
  async run(signal: AbortSignal): Promise<void> {
    this.#started = this.#measured = performance.now()
    await this.#lab.startTraffic(ratePerSecond)
    this.#bpvsd = { text: `pid ${this.#lab.bpvsd.pid}`, well: true }
    const watched = this.#watchBpvsd(signal)
    await Promise.race([watched, this.#show(signal)])
  }

  /** What the lab did, for the end. */
  summary(): string {
    const requests = `${this.#sent.toLocaleString('en')} requests sent, ${this.#failed.toLocaleString('en')} failed`
    return `${requests} in ${Math.round((performance.now() - this.#started) / 1000)} s`
  }

  /** Starts bpvsd anew whenever it ends; one that does not get ready ends the lab. */
  async #watchBpvsd(signal: AbortSignal): Promise<never> {
    for (;;) {
      const how = await this.#lab.bpvsd.ended
      signal.throwIfAborted()
      this.#bpvsd = { text: `is gone, back in ${restartMs / 1000} s`, well: false }
      this.log({ level: 'warn', text: `ended with ${how}; the kernel goes on balancing without it` })
      await delay(restartMs, undefined, { signal })
      const { pid } = await this.#lab.startBpvsd()
      this.#bpvsd = { text: `pid ${pid}`, well: true }
    }
  }

  async #show(signal: AbortSignal): Promise<void> {
    let next = performance.now()
    for (let second = 0; ; second++) {
      next = Math.max(next + intervalMs, performance.now())
      await delay(next - performance.now(), undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      await this.#frame(second)
    }
  }

  async #frame(second: number): Promise<void> {
    const { screen } = this.#output
    const wantsListing = screen !== undefined || second % listingEveryS === 0
    const [recent, listing] = await Promise.all([this.#lab.traffic.take(), wantsListing ? this.#listing() : []])
    const state = this.#state(recent, listing)
    if (screen !== undefined) screen.draw(renderScreen(state, screen.size, this.#output.style))
    else for (const line of [...listing, ...renderLines(state)]) this.#output.line(line)
  }

  async #listing(): Promise<readonly string[]> {
    try {
      return await this.#lab.listing()
    } catch (error) {
      if (error instanceof LbError) return error.message.split('\n')
      throw error
    }
  }

  #state(recent: Report, listing: readonly string[]): LabState {
    const now = performance.now()
    const recentS = (now - this.#measured) / 1000
    this.#measured = now
    this.#sent += recent.sent
    this.#failed += recent.failed
    return {
      uptimeS: (now - this.#started) / 1000,
      clients: this.#lab.network.clients.length,
      bpvsd: this.#bpvsd,
      listing,
      recent,
      recentS,
      sent: this.#sent,
      failed: this.#failed,
      inService: new Set(this.#lab.targets.flatMap(({ servers }) => servers)),
      log: this.#log,
      manifest: join(this.#lab.manifests, 'web.yaml'),
    }
  }
}
