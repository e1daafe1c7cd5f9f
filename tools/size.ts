/** The size budget of C files: a function over a screen is split. (That of TypeScript is a lint rule.) */

const MAX_FILE_LINES = 400
const MAX_FUNCTION_LINES = 60

/** Where a text exceeds the budget, as "file:line: what". A function is what stands between "{" and "}" in column 1. */
export function oversized(file: string, text: string): string[] {
  const lines = text.split('\n')
  const found: string[] = []
  if (lines.length - 1 > MAX_FILE_LINES) {
    found.push(`${file}:1: ${lines.length - 1} lines, more than ${MAX_FILE_LINES}`)
  }
  let start = -1
  for (const [index, line] of lines.entries()) {
    if (line === '{') start = index
    if (line !== '}' || start < 0) continue
    const length = index - start - 1
    if (length > MAX_FUNCTION_LINES)
      found.push(`${file}:${start + 1}: function of ${length} lines, more than ${MAX_FUNCTION_LINES}`)
    start = -1
  }
  return found
}
