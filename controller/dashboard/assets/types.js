// Types of what the controller's API answers, as far as the page reads it (package
// controller/siteapi). There is no program in this file.

/** @typedef {{service: string, slots: number, serviceTimeMs: number, inFlight: number, arrivals: number, demand?: number, from?: Record<string, number>}} ServiceLoad */
/** @typedef {{node: string, status: string, ageMs: number, applied: {counter: number}, behind?: boolean, refusedWhy?: string, problems?: string[], chains?: NodeChains}} ProxyState */
/** @typedef {{si: number, node: string, function?: string, instance?: string, counted?: {packets: number, drops: number, packetsPerS: number, mbps: number, dropsPerS: number}, probeMs?: number, echoMs?: number}} ChainHop */
/** @typedef {{chain: string, spi: number, reversed?: boolean, broken?: string, hops: ChainHop[]}} ChainPath */
/** @typedef {{node: string, chains: number, paths: number, instances: number, down?: Record<string, string>, hops?: ChainPath[], left?: number}} NodeChains */
/** @typedef {{node: string, site: string, fault?: string, probe?: string, suspect?: string}} LinkTrouble */
/** @typedef {{site: string, role: string, version: string, traffic?: string, trafficReason?: string, generation?: {counter: number}, published: boolean, problem?: string, nodes: ProxyState[]|null, services: ServiceLoad[]|null, links?: LinkTrouble[]}} SiteSaid */
/** @typedef {{site: string, status: string, ageMs?: number, unknownSince?: string, rttMs: number, traffic?: string, trafficReason?: string, skewMs?: number, said?: SiteSaid, silence?: string, known?: (ServiceLoad & {ageMs: number})[]}} Peer */
/** @typedef {{now: string, self: SiteSaid, link: {role: string, connected: boolean, since: string, mirrorLag?: string}, peers: Peer[]}} Status */
/** @typedef {{site: string, weight: number, limit: number, rttMs: number, priceMs: number, ageMs: number, excluded?: string}} RemoteWeight */
/** @typedef {{service: string, homeLimit: number, homeWeight: number, homePriceMs?: number, off?: string, drained?: boolean, pinned?: boolean, remotes?: RemoteWeight[]}} Plan */
/** @typedef {{site: string, ageMs: number, services: Plan[]|null, nodes?: Record<string, {service: string, source: string, shares: Record<string, number>}[]>}} WeightsRow */
/** @typedef {{rows: WeightsRow[], missing?: Record<string, string>}} Weights */
/** @typedef {{key: {kind: string, namespace: string, name: string}, owner: string, object: any}} MeshObject */
/** @typedef {{objects: MeshObject[]}} Objects */
/** @typedef {{severity: string, code: string, site?: string, what: string, remedy: string}} Finding */
/** @typedef {{site: string, at: string, looked: string[], findings: Finding[]}} Checked */
/** @typedef {{cluster?: string, namespace?: string, name: string}} Workload */
/** @typedef {{requestsPerS: number, requestBytesPerS: number, responseBytesPerS: number}} Rates */
/** @typedef {{now: string, sites: {site: string, ageMs: number}[], silent?: string[], edges: {from: Workload, to: Workload, steady: Rates, across?: Rates}[]}} Traffic */
/** @typedef {{site: string, times: string[]}} Past */
/** @typedef {{at: string, sites: {site: string, status: string, traffic?: string, load?: number, servedPerS: number, inFlight: number}[], flows: {from: string, to: string, perS: number}[], cuts?: {from: string, to: string, why: string}[]}} Moment */
/** @typedef {{name?: string, role?: string, local?: boolean}} Caller */
/** @typedef {{changes: {at: string, who: string, from?: string, what: string, outcome: string}[]}} Audit */
/** @typedef {{changes?: {action: string}[], faults?: {object?: string, message: string}[], stays?: string[]}} TrafficResult */

/**
 * A site as the page shows it, whatever is known of it.
 * @typedef {{
 *   name: string, lon: number|null, lat: number|null, status: string, ageMs: number|null,
 *   traffic: string, reason: string, load: number|null, served: number, demand: number, inFlight: number,
 *   services: ServiceLoad[], said: SiteSaid|null, silence: string, rttMs: number, known: boolean
 * }} Site
 */

export {};
