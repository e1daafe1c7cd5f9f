/** Recordings of test/recordings as the JSON they are. */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'

/** Reads NAME.json.gz; the caller knows its shape. */
export function readJsonRecording<T>(name: string): T {
  const file = new URL(`../recordings/${name}.json.gz`, import.meta.url)
  return JSON.parse(gunzipSync(readFileSync(file)).toString()) as T
}
