/**
 * Writes src/abi/generated.ts from the BTF of build/bpf/lb.bpf.o. With --check: writes nothing, and fails with the
 * differences if the committed file is not what would be written.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { renderAbi } from './abi-render.ts'
import { describeObject } from '../src/native/layout.ts'
import { readObjectBtf } from '../src/native/btf-object.ts'

const root = new URL('../', import.meta.url)
const objectPath = fileURLToPath(new URL('build/bpf/lb.bpf.o', root))
const outputPath = fileURLToPath(new URL('src/abi/generated.ts', root))

/** The first line in which two texts differ, for the message. */
function firstDifference(a: string, b: string): string {
  const [left, right] = [a.split('\n'), b.split('\n')]
  const line = left.findIndex((text, i) => text !== right[i])
  return `line ${line + 1}: "${right[line] ?? ''}" in the file, "${left[line] ?? ''}" generated`
}

const text = renderAbi(describeObject(readObjectBtf(objectPath)))
if (process.argv.includes('--check')) {
  const current = readFileSync(outputPath, 'utf8')
  if (current !== text) {
    console.error(`src/abi/generated.ts is out of date (${firstDifference(text, current)}): run node tools/abi-gen.ts`)
    process.exitCode = 1
  }
} else {
  writeFileSync(outputPath, text)
}
