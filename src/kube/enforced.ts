/** What of the virtual services' rules the datapath can keep; what it can't is withheld, where serving it would harm. */
import type { Notice, Translation } from './translator.ts'
import { serviceText } from './service-text.ts'
import type { KubeVirtualService } from './virtual-services.ts'

/** An address that only some may use is not served at all while sources are not looked at. */
export function withholdUnenforced(translation: Translation): Translation {
  const { desired, notices, changes } = translation
  const withheld = desired.filter((want) => !isEnforced(want))
  if (withheld.length === 0 && changes.dropped.every(isEnforced)) return translation
  const more = withheld.map(({ service: { key } }): Notice => {
    return { object: serviceText(key), reason: 'loadBalancerSourceRanges are not enforced yet: not served' }
  })
  return {
    ...translation,
    desired: desired.filter(isEnforced),
    changes: { added: changes.added.filter(isEnforced), dropped: changes.dropped.filter(isEnforced) },
    notices: [...notices, ...more],
  }
}

function isEnforced({ rules }: KubeVirtualService): boolean {
  return rules.sources === undefined
}
