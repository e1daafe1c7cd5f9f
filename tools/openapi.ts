/** Writes docs/openapi.json, the admin API's OpenAPI document, from its routes. */
import { writeFileSync } from 'node:fs'
import { openApiDocument } from '../src/api/admin/openapi.ts'
import { routes } from '../src/api/admin/routes.ts'
import { version } from '../src/config/version.ts'

const text = `${JSON.stringify(openApiDocument(routes, version()), undefined, 2)}\n`
writeFileSync(new URL('../docs/openapi.json', import.meta.url), text)
