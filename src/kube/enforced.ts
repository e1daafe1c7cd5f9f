/** What of the virtual services' rules the datapath can keep; what it can't is withheld, where serving it would harm. */
import type { Notice, Translation } from './translator.ts'
import { serviceText } from './service-text.ts'

/** An address that only some may use is not served at all while sources are not looked at. */
export function withholdUnenforced(translation: Translation): Translation {
  const { desired, notices } = translation
  const withheld = desired.filter(({ rules }) => rules.sources !== undefined)
  if (withheld.length === 0) return translation
  const more = withheld.map(({ service: { key } }): Notice => {
    return { object: serviceText(key), reason: 'loadBalancerSourceRanges are not enforced yet: not served' }
  })
  return {
    ...translation,
    desired: desired.filter(({ rules }) => rules.sources === undefined),
    notices: [...notices, ...more],
  }
}
