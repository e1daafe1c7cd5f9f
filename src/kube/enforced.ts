/** What of the virtual services' rules the datapath can keep; what it can't is withheld, where serving it would harm. */
import type { Notice, Translation } from './translator.ts'
import { serviceText } from './service-text.ts'

/** An address that only some may use is not served at all while sources are not looked at. */
export function withholdUnenforced({ desired, notices }: Translation): Translation {
  const withheld = desired.filter(({ rules }) => rules.sources !== undefined)
  if (withheld.length === 0) return { desired, notices }
  const more = withheld.map(({ service: { key } }): Notice => {
    return { object: serviceText(key), reason: 'loadBalancerSourceRanges are not enforced yet: not served' }
  })
  return { desired: desired.filter(({ rules }) => rules.sources === undefined), notices: [...notices, ...more] }
}
