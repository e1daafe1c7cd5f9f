/** The input of `-R`: one command line per line. Pure. */

/** Lines of a text that arrives in pieces, each as soon as it is complete; the last may lack its end. */
export async function* splitLines(pieces: AsyncIterable<string>): AsyncGenerator<string> {
  let rest = ''
  for await (const piece of pieces) {
    const lines = (rest + piece).split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
  if (rest !== '') yield rest
}

/** The words of a line, without the `ipvsadm`s that it may begin with. There is no quoting and no comment. */
export function splitLine(line: string): string[] {
  const words = line
    .split(/[ \t\r]+/)
    .map((word) => word.replace(/\0.*/s, ''))
    .filter((word) => word !== '')
  const first = words.findIndex((word) => word !== 'ipvsadm')
  return first < 0 ? [] : words.slice(first)
}
