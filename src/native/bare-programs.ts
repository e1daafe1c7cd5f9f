/**
 * A table's programs for interfaces whose packets have no Ethernet header. Few hosts have such, and the verifier takes long: so they
 * are an object of their own, loaded onto the table with the first of these interfaces. Pinned beside the table's:
 * bare-prog-<name>, bare-map-<name>.
 */
import { readdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { opaqueMaps } from '../abi/generated.ts'
import { LbError } from '../model/errors.ts'
import { buildPath } from './library.ts'
import { mapPin, withDirectoryLock } from './pins.ts'
import { type Fd, openPin, pin } from './shim.ts'
import { loadShare } from './table-share.ts'

/** Programs that are attached. */
export type BareProgram = 'lb_tc_ingress' | 'lb_tc_egress'
const ENTRIES: readonly BareProgram[] = ['lb_tc_ingress', 'lb_tc_egress']
/** Maps of its own, though the table has some by the same names: what the entries go on to. They live as long as they are pinned. */
const OWN_MAPS: readonly string[] = ['lb_ingress_parts', 'lb_egress_parts']

/** The object of the programs. */
export function barePath(): string {
  return buildPath('bpf/bare.bpf.o')
}

function isLoaded(dir: string): boolean {
  const names = readdirSync(dir)
  return ENTRIES.every((name) => names.includes(`bare-prog-${name}`))
}

/** Loads the programs onto the table in `dir`; those that are there already give way. Errors as loadShare(). */
function loadBare(dir: string): void {
  const names = readdirSync(dir)
  const pins = new Map<string, string>()
  for (const name of opaqueMaps) if (!OWN_MAPS.includes(name)) pins.set(name, join(dir, mapPin(name)))
  for (const name of OWN_MAPS) if (names.includes(`bare-map-${name}`)) pins.set(name, join(dir, `bare-map-${name}`))
  const object = loadShare(barePath(), dir, {}, pins)
  try {
    for (const name of OWN_MAPS) if (!pins.has(name)) pin(found(object.maps, name), join(dir, `bare-map-${name}`))
    for (const name of ENTRIES) {
      pin(found(object.programs, name), join(dir, `bare-new-${name}`))
      renameSync(join(dir, `bare-new-${name}`), join(dir, `bare-prog-${name}`))
    }
  } finally {
    object.close()
  }
}

function found(all: ReadonlyMap<string, Fd>, name: string): Fd {
  const fd = all.get(name)
  if (fd === undefined) throw new LbError('LAYOUT', `${barePath()}: no ${name}`)
  return fd
}

/**
 * One of the programs, loaded if they are not yet: of several processes by one. The caller closes it, and has no lock on the table's
 * directory. LAYOUT, VERIFIER, UNSUPPORTED, PERMISSION, NATIVE.
 */
export function openBareProgram(dir: string, name: BareProgram): Fd {
  if (!isLoaded(dir)) {
    withDirectoryLock(dir, () => {
      if (!isLoaded(dir)) loadBare(dir)
    })
  }
  return openPin(join(dir, `bare-prog-${name}`))
}

/** Loads the programs of the present build in the place of others, if there are any. Errors as openBareProgram(). */
export function renewBarePrograms(dir: string): void {
  if (!isLoaded(dir)) return
  withDirectoryLock(dir, () => {
    loadBare(dir)
  })
}
