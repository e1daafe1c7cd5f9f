/** Rows of the matrix that do not come to what they should yet: by variant, how many of a caller at an address. */
export const gaps: Readonly<Record<string, Readonly<Record<string, number>>>> = {}
