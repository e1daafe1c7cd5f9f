/** Colours of the terminal, or none. */

export interface Style {
  readonly bold: (text: string) => string
  readonly dim: (text: string) => string
  readonly red: (text: string) => string
  readonly green: (text: string) => string
  readonly yellow: (text: string) => string
  readonly cyan: (text: string) => string
}

const introducer = '\x1b['

function sgr(on: number, off: number): (text: string) => string {
  return (text) => (text === '' ? '' : `${introducer}${on}m${text}${introducer}${off}m`)
}

const same = (text: string): string => text

/** For files, pipes and who asked for no colour (NO_COLOR). */
export const plainStyle: Style = { bold: same, dim: same, red: same, green: same, yellow: same, cyan: same }

export const colourStyle: Style = {
  bold: sgr(1, 22),
  dim: sgr(2, 22),
  red: sgr(31, 39),
  green: sgr(32, 39),
  yellow: sgr(33, 39),
  cyan: sgr(36, 39),
}

/** Which of the two suits a stream. */
export function styleFor(stream: { readonly isTTY?: boolean }, env: NodeJS.ProcessEnv): Style {
  return stream.isTTY === true && !env.NO_COLOR ? colourStyle : plainStyle
}
