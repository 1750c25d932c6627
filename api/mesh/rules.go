package mesh

import (
	"fmt"
	"math"
	"strconv"
)

// rule says what a field may hold beyond its Go type. The reader, [Validate],
// [Default] and the JSON Schema are all driven by the same table, so they cannot
// disagree. A field whose JSON tag has no omitempty is required.
type rule struct {
	enum []string
	// unserved are values that the API defines and this version refuses.
	unserved []string
	// def is what an absent field means, a string or an int.
	def any
	// span bounds numbers; on a Duration it is in seconds.
	span *span
	// format is the syntax of a string, or of each string of a list.
	format *format
	// keys is the syntax of a map's keys.
	keys func(string) (string, string)
	// minItems and maxItems bound a list; 0 is no bound.
	minItems, maxItems int
	// unique names the fields (a,b) in all of which no two items of a list may
	// agree; "." is the item itself.
	unique string
	// hint is the remedy when the field is missing.
	hint string
	// doc is the field's description in the JSON Schema.
	doc string
}

// span is lo <= x <= hi, or lo < x where open.
type span struct {
	lo, hi float64
	open   bool
}

func (s *span) check(x float64) string {
	f := func(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		return fmt.Sprintf("%v is not a finite number", x)
	case s.open && x <= s.lo:
		return f(x) + " must be more than " + f(s.lo)
	case x < s.lo && math.IsInf(s.hi, 1):
		return f(x) + " must be at least " + f(s.lo)
	case x < s.lo || x > s.hi:
		return f(x) + " is out of range, " + f(s.lo) + " to " + f(s.hi)
	}
	return ""
}

var (
	anyPort     = &span{lo: 0, hi: 65535}
	realPort    = &span{lo: 1, hi: 65535}
	weights     = &span{lo: 0, hi: 1e6}
	notNegative = &span{lo: 0, hi: math.Inf(1)}
	positive    = &span{lo: 0, hi: math.Inf(1), open: true}
	percent     = &span{lo: 0, hi: 100}
)

const meansCoreService = "without it the Gateway API means a core Service, which this version does not serve"

const meansCoreSecret = "without it the Gateway API means a core Secret, which is not served"

// rules are keyed by Go type and JSON field name; a test holds every key against
// the types.
var rules = map[string]rule{
	"ObjectMeta.name":        {format: &formatSubdomain, doc: "Name of the object, unique in its kind and namespace."},
	"ObjectMeta.namespace":   {format: &formatLabel, def: DefaultNamespace, doc: "Namespace of the object."},
	"ObjectMeta.labels":      {format: &formatLabelText, keys: checkLabelKey},
	"ObjectMeta.annotations": {keys: checkLabelKey},

	"GatewaySpec.gatewayClassName": {enum: []string{GatewayClass}, doc: "The class of gateways that Meridian serves."},
	"GatewaySpec.addresses":        {maxItems: 16, unique: "value", doc: "Addresses to bind. None means all addresses of both families."},
	"GatewaySpec.listeners":        {minItems: 1, maxItems: 1024, unique: "name"},
	"GatewayAddress.type":          {enum: []string{"IPAddress"}, unserved: []string{"Hostname", "NamedAddress"}, def: "IPAddress"},
	"GatewayAddress.value":         {format: &formatIP},
	"Listener.name":                {format: &formatSubdomain},
	"Listener.hostname":            {format: &formatHostname, doc: "Host that requests must name; *.example.com matches all below it. Absent matches every host."},
	"Listener.hostnames":           {format: &formatHostname, maxItems: 16, unique: ".", doc: "Several hosts instead of hostname, for protocol HTTP: requests for any of them are the listener's, and no other listener's of the port."},
	"Listener.port":                {span: anyPort, doc: "TCP port; 0 asks the kernel for a free one."},
	"Listener.protocol": {enum: []string{ProtocolHTTP, ProtocolHTTPS, ProtocolTCP, ProtocolTLS, ProtocolUDP, ProtocolEastWest, ProtocolOutbound},
		doc: "HTTP or HTTPS from users, TCP for whole connections, TLS for whole connections by the server name they ask for, UDP for datagrams, or mesh.meridian.dev/EastWest from other sites' proxies: what arrives there is served at this site and never passed on; or mesh.meridian.dev/Outbound for connections that chainagent redirects (ChainNode.redirect), which go on by where they were to go."},

	"RouteNamespaces.from":               {enum: []string{NamespacesSame, NamespacesAll, NamespacesSelector}, unserved: []string{"None"}, def: NamespacesSame},
	"NamespaceRequirement.key":           {doc: "The label, kubernetes.io/metadata.name."},
	"NamespaceRequirement.operator":      {enum: []string{OperatorIn, OperatorNotIn}, unserved: []string{"Exists", "DoesNotExist"}},
	"NamespaceRequirement.values":        {format: &formatLabel, maxItems: 64, unique: "."},
	"NamespaceSelector.matchLabels":      {format: &formatLabelText, keys: checkLabelKey},
	"NamespaceSelector.matchExpressions": {maxItems: 16},
	"AllowedRoutes.kinds":                {maxItems: 8, unique: "kind", doc: "Kinds of routes that may join; none is all that the protocol takes."},
	"RouteKind.group":                    {enum: []string{GatewayGroup}, def: GatewayGroup},
	"RouteKind.kind":                     {enum: []string{KindHTTPRoute, KindGRPCRoute, KindTCPRoute, KindTLSRoute, KindUDPRoute}},

	"ReferenceGrantSpec.from":      {minItems: 1, maxItems: 16, doc: "Whose references are permitted."},
	"ReferenceGrantSpec.to":        {minItems: 1, maxItems: 16, doc: "What may be named, in the namespace of the grant."},
	"ReferenceGrantFrom.group":     {enum: []string{GatewayGroup}},
	"ReferenceGrantFrom.kind":      {enum: []string{KindHTTPRoute, KindTCPRoute, KindTLSRoute, KindUDPRoute, KindGRPCRoute, KindGateway}},
	"ReferenceGrantFrom.namespace": {format: &formatLabel},
	"ReferenceGrantTo.group":       {doc: "mesh.meridian.dev for a MeshService; empty is the core group."},
	"ReferenceGrantTo.kind":        {enum: []string{KindMeshService, "Service", "Secret"}},
	"ReferenceGrantTo.name":        {format: &formatSubdomain, doc: "The one that may be named; absent is all of the kind."},

	"RouteRetry.codes":    {span: &span{lo: 400, hi: 599}, maxItems: 32, doc: "Statuses of a response that is not passed on but asked for again; none retries failures without a response only."},
	"RouteRetry.attempts": {span: &span{lo: 1, hi: 10}, doc: "New attempts after the first; that of the TrafficPolicy (2) where absent."},
	"RouteRetry.backoff":  {format: &formatGEP2257, doc: "Least wait before an attempt, 25ms by default; it doubles up to ten times this much, and half as much at random is added."},

	"ListenerTLS.mode":                     {enum: []string{TLSTerminate, TLSPassthrough}, def: TLSTerminate, doc: "Terminate ends the session here; Passthrough leaves it to the backend."},
	"ListenerTLS.certificateRefs":          {maxItems: 64, unique: "name", doc: "The listener's certificates; of several the first that fits the client's name and algorithms is shown."},
	"ListenerTLS.options":                  {doc: "mesh.meridian.dev/min-tls-version: \"1.3\" (the default) or \"1.2\"."},
	"FrontendValidation.caCertificateRefs": {minItems: 1, maxItems: 16, unique: "name", doc: "Issuers of the clients' certificates."},
	"FrontendValidation.mode":              {enum: []string{AllowValidOnly, AllowMissing}, unserved: []string{"AllowInsecureFallback"}, def: AllowValidOnly, doc: "AllowValidOnly refuses clients without a certificate, AllowMissing takes them; one that is not valid is always refused."},
	"CertificateSpec.certificateFile":      {format: &formatAbsolute, doc: "Certificate chain in PEM, the leaf first, or issuers to trust; an absolute path on the machine of each proxy."},
	"CertificateSpec.keyFile":              {format: &formatAbsolute, doc: "Key of the leaf in PEM, unencrypted; absent where the certificates are only to be trusted."},
	"CertificateRef.group":                 {enum: []string{MeshGroup}, hint: "add group: " + MeshGroup + "; " + meansCoreSecret},
	"CertificateRef.kind":                  {enum: []string{KindCertificate}, unserved: []string{"Secret", "ConfigMap"}, hint: "add kind: " + KindCertificate + "; " + meansCoreSecret},
	"CertificateRef.name":                  {format: &formatSubdomain, doc: "A Certificate of the same namespace."},
	"BackendTLS.hostname":                  {format: &formatHostname, doc: "Whom the endpoints' certificate has to name, and who is asked for (SNI)."},
	"BackendTLS.caCertificateRefs":         {maxItems: 16, unique: "name", doc: "Issuers of the endpoints' certificates."},
	"BackendTLS.wellKnownCACertificates":   {enum: []string{SystemCertificates}, doc: "System: the issuers that the proxy's machine trusts."},
	"BackendTLS.options":                   {doc: "mesh.meridian.dev/min-tls-version: \"1.3\" (the default) or \"1.2\"."},

	"TrustBundleSpec.trustDomain": {format: &formatDomain, doc: "Trust domain of the mesh's SPIFFE IDs. The hub keeps it."},
	"TrustBundleSpec.roots":       {format: &formatRoot, minItems: 1, maxItems: 8, doc: "CA certificates in PEM, one each, the newest first. The hub keeps them."},
	"TrustBundleSpec.denied":      {maxItems: 1024, doc: "Certificates that are out of use before they end."},
	"DeniedIdentity.id":           {format: &formatSPIFFE, doc: "SPIFFE ID of a node or workload, or of a whole site: spiffe://DOMAIN/site/SITE."},
	"DeniedIdentity.serial":       {format: &formatSerial, doc: "Serial number in lower-case hexadecimal; with id only that certificate of the identity."},
	"DeniedIdentity.reason":       {doc: "For people."},

	"TCPRouteSpec.parentRefs":        {minItems: 1, maxItems: 32, hint: "name the Gateway that the route joins"},
	"TCPRouteSpec.rules":             {minItems: 1, maxItems: 1},
	"UDPRouteSpec.parentRefs":        {minItems: 1, maxItems: 32, hint: "name the Gateway that the route joins"},
	"UDPRouteSpec.rules":             {minItems: 1, maxItems: 1},
	"TLSRouteSpec.parentRefs":        {minItems: 1, maxItems: 32, hint: "name the Gateway that the route joins"},
	"TLSRouteSpec.hostnames":         {format: &formatHostname, unique: ".", doc: "Server names of the route; none means those of the listener."},
	"TLSRouteSpec.rules":             {minItems: 1, maxItems: 1},
	"StreamRouteRule.name":           {format: &formatSubdomain},
	"StreamRouteRule.backendRefs":    {minItems: 1, maxItems: 64, doc: "Services that share the connections by weight."},
	"HTTPRouteSpec.parentRefs":       {minItems: 1, maxItems: 32, hint: "name the Gateway that the route joins"},
	"HTTPRouteSpec.hostnames":        {format: &formatHostname, maxItems: 16, unique: ".", doc: "Hosts of the route; none means those of the listener."},
	"HTTPRouteSpec.rules":            {minItems: 1, maxItems: 16, hint: "split the route: routes of the same hostnames are matched as one"},
	"GRPCRouteSpec.parentRefs":       {minItems: 1, maxItems: 32, hint: "name the Gateway that the route joins"},
	"GRPCRouteSpec.hostnames":        {format: &formatHostname, maxItems: 16, unique: ".", doc: "Hosts of the route; none means those of the listener."},
	"GRPCRouteSpec.rules":            {minItems: 1, maxItems: 16, hint: "split the route: routes of the same hostnames are matched as one"},
	"GRPCRouteRule.name":             {format: &formatSubdomain},
	"GRPCRouteRule.matches":          {maxItems: 64, doc: "Alternatives; none matches every call."},
	"GRPCRouteRule.filters":          {maxItems: 16, doc: "What is done to the rule's calls and their responses."},
	"GRPCRouteRule.backendRefs":      {maxItems: 16, doc: "Services that share the rule's calls by weight; without one calls fail."},
	"GRPCRouteMatch.headers":         {maxItems: 16, unique: "name"},
	"GRPCMethodMatch.type":           {enum: []string{MatchExact, MatchRegularExpression}, def: MatchExact},
	"GRPCMethodMatch.service":        {doc: "Full name of the service, such as helloworld.Greeter; none is any."},
	"GRPCMethodMatch.method":         {doc: "Name of the method, such as SayHello; none is any."},
	"GRPCRouteFilter.type":           {enum: []string{FilterRequestHeaderModifier, FilterResponseHeaderModifier, FilterRequestMirror}, unserved: []string{FilterExtensionRef}},
	"GRPCBackendRef.group":           {enum: []string{MeshGroup}, hint: "add group: " + MeshGroup + "; " + meansCoreService},
	"GRPCBackendRef.kind":            {enum: []string{KindMeshService}, unserved: []string{"Service", "ServiceImport"}, hint: "add kind: " + KindMeshService + "; " + meansCoreService},
	"GRPCBackendRef.namespace":       {format: &formatLabel},
	"GRPCBackendRef.name":            {format: &formatSubdomain},
	"GRPCBackendRef.port":            {span: realPort, doc: "Port of the service, of protocol http2; may be left out where it has only one."},
	"GRPCBackendRef.weight":          {span: weights, def: 1, doc: "Share among the rule's backends; 0 takes none."},
	"GRPCBackendRef.filters":         {maxItems: 16, doc: "What is done to this share's calls and responses, after the rule's filters."},
	"ParentRef.group":                {enum: []string{GatewayGroup, MeshGroup}, def: GatewayGroup},
	"ParentRef.kind":                 {enum: []string{KindGateway, KindMeshService}, unserved: []string{"Service", "XListenerSet", "ListenerSet"}, def: KindGateway},
	"ParentRef.namespace":            {format: &formatLabel},
	"ParentRef.name":                 {format: &formatSubdomain, doc: "A Gateway, or a MeshService of the route's namespace, for connections to its addresses that a proxy was given by redirection."},
	"ParentRef.sectionName":          {format: &formatSubdomain, doc: "Name of the listener to join; absent joins all."},
	"ParentRef.port":                 {span: realPort, doc: "Port of the listeners, or of the MeshService, to join; absent joins all."},
	"HTTPRouteRule.name":             {format: &formatSubdomain},
	"HTTPRouteRule.matches":          {maxItems: 64, doc: "Alternatives; none matches every request."},
	"HTTPRouteRule.filters":          {maxItems: 16, doc: "What is done to the rule's requests and responses."},
	"HTTPRouteRule.backendRefs":      {maxItems: 16, doc: "Services that share the rule's requests by weight; none answers 500."},
	"HTTPRouteMatch.headers":         {maxItems: 16, unique: "name"},
	"HTTPRouteMatch.queryParams":     {maxItems: 16, unique: "name"},
	"HTTPRouteMatch.method":          {enum: routedMethods, unserved: []string{"CONNECT"}},
	"PathMatch.type":                 {enum: []string{PathExact, PathPrefix, MatchRegularExpression}, def: PathPrefix},
	"PathMatch.value":                {def: "/", doc: "A path, or an expression (RE2) that must match the whole path."},
	"HeaderMatch.type":               {enum: []string{MatchExact, MatchRegularExpression}, def: MatchExact},
	"HeaderMatch.name":               {format: &formatRequestField},
	"HeaderMatch.value":              {format: &formatMatchValue},
	"QueryParamMatch.type":           {enum: []string{MatchExact, MatchRegularExpression}, def: MatchExact},
	"QueryParamMatch.name":           {format: &formatHeader},
	"QueryParamMatch.value":          {format: &formatQueryValue},
	"BackendRef.group":               {enum: []string{MeshGroup}, hint: "add group: " + MeshGroup + "; " + meansCoreService},
	"BackendRef.kind":                {enum: []string{KindMeshService}, unserved: []string{"Service", "ServiceImport"}, hint: "add kind: " + KindMeshService + "; " + meansCoreService},
	"BackendRef.namespace":           {format: &formatLabel},
	"BackendRef.name":                {format: &formatSubdomain},
	"BackendRef.port":                {span: realPort, doc: "Port of the service; may be left out where it has only one."},
	"BackendRef.weight":              {span: weights, def: 1, doc: "Share among the rule's backends; 0 takes none."},
	"BackendRef.filters":             {maxItems: 16, doc: "What is done to this share's requests and responses, after the rule's filters."},
	"RouteTimeouts.request":          {format: &formatGEP2257, doc: "Bound of the whole exchange with the client; 0s is none."},
	"RouteTimeouts.backendRequest":   {format: &formatGEP2257, doc: "Bound of one attempt; 0s is none."},
	"SiteSpec.location":              {doc: "GeoJSON Point, longitude first (RFC 7946).", hint: "such as {type: Point, coordinates: [144.96, -37.81]}, longitude first"},
	"SiteSpec.parent":                {format: &formatLabel, doc: "The enclosing site, area or region."},
	"SiteSpec.gateways":              {maxItems: 16, unique: "address", doc: "Advertised addresses of the site's east-west listeners, the best first."},
	"SiteSpec.links":                 {unique: "to"},
	"SiteSpec.mtls":                  {enum: []string{MTLSStrict, MTLSPermissive, MTLSDisabled}, doc: "What the site's east-west listeners take: strict only proxies of the mesh by their identities, permissive also who comes without TLS, disabled no TLS at all, and others use none on their way there. strict where it is left out. Without a TrustBundle there is no TLS between proxies."},
	"SiteSpec.traffic":               {enum: []string{SiteAccepts, SiteCordoned, SiteDrained}, doc: "What the site takes of new requests: accept takes all, cordoned those of its own users, drained none while another site can take them. accept where it is left out."},
	"geoPoint.type":                  {enum: []string{"Point"}, unserved: []string{"Polygon", "MultiPoint", "LineString"}},
	"geoPoint.coordinates":           {minItems: 2, maxItems: 3, doc: "[longitude, latitude] in degrees, WGS 84; a third number (altitude) is ignored."},
	"SiteGateway.address":            {format: &formatHostPort},
	"SiteLink.to":                    {format: &formatLabel, doc: "Name of the other site."},
	"SiteLink.rtt":                   {span: positive, doc: "Round-trip time known beforehand; measured values are blended into it."},
	"SiteLink.address":               {format: &formatHostPort, doc: "Address that reaches the site from here when its advertised one does not."},
	"SiteLink.price":                 {span: notNegative, doc: "Cost of sending one request this way, in ms of delay."},
	"SiteLink.maxRate":               {span: notNegative, doc: "Most requests per second of one service that a proxy sends this way; 0 is no limit."},
	"LinkBudget.gigabytesPerDay":     {span: &span{lo: 1e-6, hi: 1e6}, doc: "What the site's proxies may carry over the link in a day, requests that they send and the answers, in 10^9 bytes."},
	"LinkBudget.resetAt":             {format: &formatDayTime, def: "00:00", doc: "When a day begins: a time and its distance from UTC, such as 06:00+10:00; UTC where that is left out."},
	"MeshServiceSpec.ports":          {minItems: 1, maxItems: 64, unique: "port"},
	"MeshServiceSpec.endpoints":      {unique: "address,site,node"},
	"MeshServiceSpec.objective":      {doc: "What the service's users are promised; meridian apply --prove refuses changes that would break it."},
	"ServiceObjective.meanLatency":   {span: positive, doc: "Greatest mean delay of a request."},
	"ServiceObjective.p99Latency":    {span: positive, doc: "Greatest delay of 99 of 100 requests."},
	"ServiceObjective.errorPercent":  {span: percent, doc: "Greatest part of requests without an answer in time, in percent."},
	"ServicePort.name":               {format: &formatLabel},
	"ServicePort.port":               {span: realPort},
	"ServicePort.protocol":           {enum: []string{PortHTTP, PortHTTP2, PortTCP, PortUDP}, unserved: []string{"h2c", "grpc", "https", "tls"}, def: PortHTTP, doc: "http, http2 for HTTP/2 without TLS (gRPC servers among them), tcp for whole connections (TCPRoute, TLSRoute), or udp for datagrams (UDPRoute)."},
	"Endpoint.address":               {format: &formatAddress, doc: "ip:port of the process, IPv6 in brackets; or name:port, followed through DNS; or _service._proto.name of SRV records."},
	"Endpoint.site":                  {format: &formatLabel},
	"Endpoint.node":                  {format: &formatSubdomain},
	"Endpoint.weight":                {span: weights, def: 1},
	"CallerSpec.workload":            {doc: "Who calls; left out, the object's own namespace and name."},
	"CallerSpec.addresses":           {minItems: 1, maxItems: MaxCallerAddresses, format: &formatIP, unique: ".", doc: "IP addresses that it calls from, of no other workload."},
	"Workload.cluster":               {format: &formatSubdomain},
	"Workload.namespace":             {format: &formatLabel},
	"Workload.name":                  {format: &formatSubdomain},
	"GeoFenceSpec.targetRefs":        {minItems: 1, maxItems: 64, unique: "name", doc: "The fenced services."},
	"GeoFenceSpec.allow":             {doc: "Where their traffic may go: a site is inside when its name, a parent or an area says so."},
	"FenceTargetRef.group":           {enum: []string{MeshGroup}, def: MeshGroup},
	"FenceTargetRef.kind":            {enum: []string{KindMeshService}, unserved: []string{"Service"}},
	"FenceTargetRef.name":            {format: &formatLabel, doc: "A MeshService of the fence's namespace."},
	"FenceAllow.sites":               {format: &formatLabel, maxItems: 1024, unique: ".", doc: "Sites by name."},
	"FenceAllow.parents":             {format: &formatLabel, maxItems: 64, unique: ".", doc: "Areas, regions or sites with all that is below them (spec.parent of a Site)."},
	"FenceAllow.areas":               {maxItems: 64, doc: "Sites by their location."},
	"GeoPolygon.type":                {enum: []string{"Polygon"}, unserved: []string{"MultiPolygon", "Point"}, hint: "write each polygon of a MultiPolygon as an item"},
	"GeoPolygon.coordinates":         {doc: "GeoJSON (RFC 7946): rings of [longitude, latitude], the border first, then holes; a ring ends where it begins. An area across longitude 180 is two polygons."},
	"Capacity.concurrency":           {span: &span{lo: 1, hi: 1e6}, doc: "Requests worked on at once; more wait."},
	"Capacity.serviceTime":           {span: positive, doc: "Mean time of one request without waiting."},
	"Capacity.unit":                  {enum: []string{UnitRequests, UnitSessions}, doc: "What concurrency counts: requests, or sessions that stay open (WebSocket, streams), whose messages take serviceTime. By default requests, and sessions where every port is tcp or udp."},
	"Capacity.pool":                  {format: &formatLabel, doc: "Machine shared with other services of the site."},
	"Export.scope":                   {enum: []string{ScopeSite, ScopeMesh}, def: ScopeSite},
	"Export.sites":                   {format: &formatLabel, unique: ".", doc: "The sites that may use the service; none with scope mesh means all."},
	"TrafficPolicySpec.targetRefs":   {minItems: 1, maxItems: 64},
	"PolicyTargetRef.group":          {enum: []string{MeshGroup, GatewayGroup}, def: MeshGroup},
	"PolicyTargetRef.kind":           {enum: []string{KindMeshService, KindGateway}, unserved: []string{"Service", KindHTTPRoute}},
	"PolicyTargetRef.sectionName":    {format: &formatSubdomain, doc: "A listener of the Gateway; absent means all."},
	"AcceptProxyProtocol.from":       {minItems: 1, maxItems: 64, unique: ".", format: &formatCIDR, doc: "Networks of the balancers whose connections begin with a PROXY header."},
	"Forwarding.trustedNetworks":     {maxItems: 64, unique: ".", format: &formatCIDR, doc: "Networks of the proxies in front of this one, whose Forwarded and X-Forwarded fields are kept."},
	"Forwarding.trustedHops":         {span: &span{lo: 0, hi: 32}, doc: "How many proxies are in front of this one: the client's address is that many from the right in X-Forwarded-For."},
	"Forwarding.forwarded":           {doc: "Send Forwarded (RFC 7239) beside the X-Forwarded fields."},
	"Forwarding.via":                 {format: &formatVia, def: DefaultVia, doc: "Name of this proxy in Via; a request that has been here 8 times is refused (508)."},
	"SlowClients.grace":              {span: positive, def: DefaultSlowGrace.String(), doc: "How long a client may be slow."},
	"SlowClients.minBytesPerSecond":  {span: &span{lo: 0, hi: 1e9}, def: DefaultMinBytesPerSecond, doc: "What it must send of a body, or take of a response, over each grace while the proxy waits for it; 0: any byte."},
	"SendProxyProtocol.version":      {enum: []string{ProxyV1, ProxyV2}, def: ProxyV2},
	"PolicyTargetRef.name":           {format: &formatSubdomain},
	"SiteSharing.policy":             {enum: []string{SharingCooperative, SharingNone, SharingRoundRobin, SharingWeightedRoundRobin}, def: SharingCooperative},
	"SiteSharing.stayHome":           {span: &span{lo: 1, hi: 100}, def: 2, doc: "How many times dearer than the cheapest other site home may become before requests leave."},
	"SiteSharing.pins":               {unique: "from", doc: "What sites send where, fixed in place of what is planned."},
	"SitePin.from":                   {format: &formatLabel, doc: "The site whose own users' requests are meant."},
	"SitePin.to":                     {minItems: 1, maxItems: 64, unique: "site"},
	"PinShare.site":                  {format: &formatLabel},
	"PinShare.weight":                {span: weights, doc: "Its part among the sites of the pin; 0 takes none."},
	"SiteSharing.shedAfter":          {span: positive, doc: "Longest wait in line at home that a request is let into when no other site is left for it; longer ones are refused at once (503). Absent never refuses."},
	"SiteSharing.priorityClasses":    {maxItems: MaxPriorityClasses, unique: "name", doc: "Requests with a shedAfter of their own, so that when nothing is left those that may wait least are refused first."},
	"PriorityClass.name":             {format: &formatLabel, doc: "Its name in metrics and explanations."},
	"PriorityClass.header":           {format: &formatRequestField, doc: "Field of the request that says its class."},
	"PriorityClass.values":           {minItems: 1, maxItems: 32, unique: ".", format: &formatMatchValue, doc: "Values of the field, each whole and as it is written."},
	"PriorityClass.shedAfter":        {span: positive, doc: "shedAfter of these requests."},
	"PolicyTimeouts.connect":         {span: positive},
	"PolicyTimeouts.idle":            {span: positive},
	"PolicyTimeouts.request":         {span: positive},
	"Retries.attempts":               {span: &span{lo: 0, hi: 10}, doc: "New attempts after the first; 0 turns retries off."},
	"ClientPosition.geoHeader":       {format: &formatHeader, doc: "Header that holds an RFC 5870 geo URI."},
	"ClientPosition.latitudeHeader":  {format: &formatHeader},
	"ClientPosition.longitudeHeader": {format: &formatHeader},

	"LoadBalancing.algorithm": {enum: []string{LBFadingTable, LBLeastRequest, LBPeakEWMA, LBRoundRobin, LBRandom, LBRingHash, LBMaglev}, unserved: []string{"prequal"}, def: LBFadingTable,
		doc: "fadingTable goes by the load that endpoints report in response headers, as leastRequest does without; ringHash and maglev place requests by the hash of the session (header or source address), of the source address where the service has no session affinity."},
	"LoadBalancing.hashBalanceFactor":      {span: &span{lo: 0, hi: 10000}, doc: "Bounds what ringHash sends to one endpoint, in percent of its share of the requests in flight; 0 bounds nothing."},
	"SlowStart.window":                     {span: positive, doc: "How long an endpoint that appeared or recovered takes less than its share."},
	"SlowStart.aggression":                 {span: positive, def: 1, doc: "Bends the ramp: 1 is a straight line, more rises earlier."},
	"SlowStart.minWeightPercent":           {span: percent, def: 10, doc: "Part of its share that an endpoint takes at the start."},
	"OutlierDetection.consecutiveFailures": {span: notNegative, def: 5, doc: "Failures without a success between them that eject an endpoint; 0 switches this sign off."},
	"OutlierDetection.successRateMargin":   {span: percent, def: 30, doc: "How many percent below its siblings' an endpoint's success rate may be; 0 switches this sign off."},
	"OutlierDetection.interval":            {span: positive, doc: "How long successes are counted before endpoints are compared, 10s by default."},
	"OutlierDetection.minRequests":         {span: notNegative, def: 20, doc: "Endpoints with fewer requests in the interval are not compared."},
	"OutlierDetection.baseEjectionTime":    {span: positive, doc: "How long the first ejection lasts, 10s by default; each further one doubles it."},
	"OutlierDetection.maxEjectionTime":     {span: positive, doc: "Bound of an ejection, 5m by default."},
	"OutlierDetection.maxEjectionPercent":  {span: percent, def: 50, doc: "Endpoints that may be out at the same time, in percent; one may always where there are several. 0 switches ejection off."},
	"OutlierDetection.panicThreshold":      {span: percent, doc: "Percentage of healthy endpoints below which all are used."},
	"Connections.maxAge":                   {doc: "Age, give or take a tenth, at which a connection to an endpoint ends after its request; 1h by default, 0s is no bound."},
	"Connections.maxRequests":              {span: notNegative, doc: "Requests, give or take a tenth, that a connection to an endpoint carries; 0 is no bound."},
	"SessionAffinity.type":                 {enum: []string{AffinityCookie, AffinityHeader, AffinitySourceAddress}, def: AffinityCookie},
	"SessionAffinity.sessionName":          {format: &formatHeader, doc: "Name of the cookie (meridian-<service> by default) or of the header."},
	"SessionAffinity.absoluteTimeout":      {format: &formatGEP2257, span: positive, doc: "How long a permanent cookie lives."},
	"CookieConfig.lifetimeType":            {enum: []string{CookieSession, CookiePermanent}, def: CookieSession},
	"CookieConfig.path":                    {format: &formatPath, def: "/"},
	"CookieConfig.sameSite":                {enum: []string{"Lax", "Strict", "None"}, def: "Lax", doc: "None makes the cookie Secure too, as browsers ask."},

	"PeerAuthenticationSpec.mtls":         {enum: []string{MTLSStrict, MTLSPermissive}, doc: "What requests of other sites for the namespace's services need: strict the identity of a proxy, permissive none. Absent says nothing: the site's mtls holds, which alone can be disabled."},
	"PeerAuthenticationSpec.ports":        {maxItems: 64, unique: "port", doc: "Ports of the namespace's services for which something else holds."},
	"PortAuthentication.port":             {span: realPort, doc: "Port of MeshServices."},
	"PortAuthentication.mtls":             {enum: []string{MTLSStrict, MTLSPermissive}, doc: "As mtls of the namespace, which it goes before."},
	"AuthorizationPolicySpec.targetRefs":  {maxItems: 64, doc: "What is protected; none is all that comes into the site."},
	"AuthorizationPolicySpec.action":      {enum: []string{ActionAllow, ActionDeny, ActionAudit}, doc: "allow, beside which a target takes nothing else; deny, which wins; audit, which counts only."},
	"AuthorizationPolicySpec.dryRun":      {doc: "Count what the policy would decide, and decide nothing."},
	"AuthorizationPolicySpec.rules":       {maxItems: 16384, doc: "Alternatives. {} matches everything; action allow without rules allows nobody."},
	"AuthorizationTargetRef.group":        {enum: []string{MeshGroup, GatewayGroup}, def: MeshGroup},
	"AuthorizationTargetRef.kind":         {enum: []string{KindMeshService, KindGateway, KindHTTPRoute, KindGRPCRoute, KindTCPRoute, KindTLSRoute, KindUDPRoute}, unserved: []string{"Service", KindSite}},
	"AuthorizationTargetRef.name":         {format: &formatSubdomain},
	"AuthorizationTargetRef.sectionName":  {format: &formatSubdomain, doc: "A listener of the Gateway, alone at its port; absent means all."},
	"AuthorizationRule.name":              {format: &formatLabel, doc: "Its name in logs and explanations."},
	"AuthorizationRule.from":              {maxItems: 1024, doc: "Who, one of these; absent is anybody."},
	"AuthorizationRule.to":                {maxItems: 1024, doc: "For what, one of these; absent is anything."},
	"AuthorizationSource.identities":      {maxItems: 1024, unique: ".", format: &formatIdentityPattern, doc: "URIs of certificates: the client's, or that of the proxy that handed the request over. An asterisk stands for one segment, as the last one for all that follow."},
	"AuthorizationSource.sites":           {maxItems: 1024, unique: ".", format: &formatLabel, doc: "Sites whose proxies handed the request over, by their certificates."},
	"AuthorizationSource.namespaces":      {maxItems: 1024, unique: ".", format: &formatLabel, doc: "What follows /ns/ in an identity."},
	"AuthorizationSource.sources":         {maxItems: 1024, unique: ".", format: &formatCIDR, doc: "Networks of the client's address."},
	"AuthorizationSource.unauthenticated": {doc: "Clients that showed no certificate with a URI."},
	"AuthorizationAccess.ports":           {maxItems: 64, span: realPort, doc: "The service's port where the target is a MeshService, else the listener's."},
	"AuthorizationAccess.methods":         {maxItems: 32, unique: ".", format: &formatMethod},
	"AuthorizationAccess.hosts":           {maxItems: 1024, unique: ".", format: &formatHostname, doc: "As an HTTPRoute's hostnames."},
	"AuthorizationAccess.paths":           {maxItems: 1024},
	"AuthorizationAccess.headers":         {maxItems: 16, doc: "All of them must match."},
	"AuthorizationPath.type":              {enum: []string{PathExact, PathPrefix}, unserved: []string{MatchRegularExpression}, def: PathPrefix},
	"AuthorizationPath.value":             {format: &formatPath},
	"AuthorizationHeader.name":            {format: &formatRequestField},
	"AuthorizationHeader.value":           {format: &formatFieldValue, doc: "The whole value; absent is any."},

	"HTTPRouteFilter.type": {enum: []string{FilterRequestHeaderModifier, FilterResponseHeaderModifier, FilterRequestMirror, FilterRequestRedirect,
		FilterURLRewrite, FilterCORS, FilterExtensionRef}, unserved: []string{"ExternalAuth"}},
	"HeaderModifier.set":              {maxItems: 16, unique: "name"},
	"HeaderModifier.add":              {maxItems: 16, unique: "name"},
	"HeaderModifier.remove":           {format: &formatField, maxItems: 16, unique: "."},
	"HeaderValue.name":                {format: &formatField},
	"HeaderValue.value":               {format: &formatFieldValue},
	"RequestMirror.percent":           {span: &span{lo: 0, hi: 100}, doc: "Percentage of the requests that are copied; neither percent nor fraction is all."},
	"Fraction.numerator":              {span: notNegative},
	"Fraction.denominator":            {span: &span{lo: 1, hi: math.MaxInt32}, def: 100},
	"RequestRedirect.scheme":          {enum: []string{"http", "https"}},
	"RequestRedirect.hostname":        {format: &formatPrecise},
	"RequestRedirect.port":            {span: realPort, doc: "Port in the Location; absent is the port of the scheme where one is written, else the listener's."},
	"RequestRedirect.statusCode":      {span: &span{lo: 301, hi: 308}, def: 302, doc: "301, 302, 303, 307 or 308."},
	"URLRewrite.hostname":             {format: &formatPrecise, doc: "The Host that the backend sees."},
	"PathModifier.type":               {enum: []string{ReplaceFullPath, ReplacePrefixMatch}},
	"PathModifier.replaceFullPath":    {format: &formatPath},
	"PathModifier.replacePrefixMatch": {format: &formatPrefix, doc: "What stands for the matched prefix; empty takes it out."},
	"CORS.allowOrigins":               {format: &formatOrigin, maxItems: 64, unique: ".", doc: "Origins that may read responses, such as https://shop.example.com or https://*.example.com; * alone is all."},
	"CORS.allowMethods":               {enum: append([]string{"*"}, append([]string{"CONNECT"}, routedMethods...)...), maxItems: 9, unique: "."},
	"CORS.allowHeaders":               {format: &formatHeader, maxItems: 64, unique: "."},
	"CORS.exposeHeaders":              {format: &formatHeader, maxItems: 64, unique: "."},
	"CORS.maxAge":                     {span: &span{lo: 1, hi: math.MaxInt32}, def: 5, doc: "Seconds for which a browser may keep the answer to a preflight request."},
	"LocalObjectRef.group":            {enum: []string{MeshGroup}},
	"LocalObjectRef.kind":             {enum: []string{KindLocalResponse, KindServiceChain}},
	"LocalObjectRef.name":             {format: &formatSubdomain},
	"BackendObjectRef.group":          {enum: []string{MeshGroup}, hint: "add group: " + MeshGroup + "; " + meansCoreService},
	"BackendObjectRef.kind":           {enum: []string{KindMeshService}, unserved: []string{"Service", "ServiceImport"}, hint: "add kind: " + KindMeshService + "; " + meansCoreService},
	"BackendObjectRef.namespace":      {format: &formatLabel},
	"BackendObjectRef.name":           {format: &formatSubdomain},
	"BackendObjectRef.port":           {span: realPort, doc: "Port of the service; may be left out where it has only one."},
	"LocalResponseSpec.statusCode":    {span: &span{lo: 200, hi: 599}, doc: "Default 200; of an error page that of the error."},
	"LocalResponseSpec.contentType":   {format: &formatFieldValue, def: "text/plain; charset=utf-8"},
	"LocalResponseSpec.body":          {format: &formatBody},
	"LocalResponseSpec.replaces":      {span: &span{lo: 400, hi: 599}, maxItems: 32, doc: "The proxy's own error responses for which this is the page; none answers every request."},

	"ServiceChainSpec.functions":       {minItems: 1, maxItems: 16, format: &formatSubdomain, doc: "NetworkFunctions of this namespace, in the order in which traffic passes them."},
	"ServiceChainSpec.match":           {minItems: 1, maxItems: 64, doc: "Alternatives: the chain's traffic matches one of them."},
	"ServiceChainSpec.symmetric":       {doc: "Answers pass the same instances in the opposite order; true by default."},
	"ServiceChainSpec.paths":           {span: &span{lo: 1, hi: 16}, def: 1, doc: "Over how many paths, of different instances where there are some, flows are spread."},
	"ServiceChainSpec.latencyBudget":   {span: positive, doc: "Bound of links and functions together, one way."},
	"ServiceChainSpec.failureMode":     {enum: []string{FailClosed, FailOpen}, def: FailClosed, doc: "What happens to the chain's traffic while it has no path: closed drops it, open lets it pass."},
	"ServiceChainSpec.branches":        {maxItems: 16, doc: "Where packets of the chain are classified again and may go on by another chain."},
	"ChainBranch.after":                {format: &formatSubdomain, doc: "The function behind which; absent is before the first."},
	"ChainBranch.chain":                {format: &formatSubdomain, doc: "Another ServiceChain of this namespace."},
	"ServiceChainSpec.update":          {enum: []string{UpdateNewFlows, UpdateImmediate}, def: UpdateNewFlows, doc: "Whether flows that are known stay on their path when the chain changes, as long as it works, or move at once."},
	"ChainEnd.node":                    {format: &formatSubdomain, doc: "A ChainNode."},
	"ChainEnd.gateway":                 {format: &formatSubdomain, doc: "A Gateway of this namespace, where a chain of requests begins."},
	"ChainEnd.listener":                {format: &formatSubdomain, doc: "The Gateway's listener; absent is all for HTTP and HTTPS."},
	"ChainEnd.interface":               {format: &formatInterface},
	"ChainDemand.packetsPerSecond":     {span: notNegative},
	"ChainDemand.mbps":                 {span: notNegative},
	"ChainMatch.interfaces":            {format: &formatInterface, unique: "."},
	"ChainMatch.sources":               {format: &formatCIDR, maxItems: 64, unique: "."},
	"ChainMatch.destinations":          {format: &formatCIDR, maxItems: 64, unique: "."},
	"ChainMatch.sourcePorts":           {format: &formatPortRange, maxItems: 64, unique: ".", doc: "Ports or ranges, such as \"80\" or \"8000-8999\"."},
	"ChainMatch.destinationPorts":      {format: &formatPortRange, maxItems: 64, unique: ".", doc: "Ports or ranges, such as \"80\" or \"8000-8999\"."},
	"ChainMatch.protocols":             {enum: []string{"tcp", "udp", "sctp", "icmp", "icmp6"}, unique: "."},
	"ChainMatch.dscp":                  {span: &span{lo: 0, hi: 63}},
	"ChainMatch.sourceSites":           {format: &formatLabel, unique: ".", doc: "Sites that ports or pools of the ingress node name."},
	"ChainMatch.dnns":                  {format: &formatSubdomain, unique: ".", doc: "Data networks that ports or pools of the ingress node name."},
	"ChainMatch.hosts":                 {format: &formatHostname, maxItems: 16, unique: ".", doc: "Hosts of requests, as an HTTPRoute's hostnames."},
	"ChainMatch.paths":                 {maxItems: 16, doc: "Paths of requests, one of which must match."},
	"ChainMatch.methods":               {enum: routedMethods, unique: "."},
	"ChainMatch.headers":               {maxItems: 16, unique: "name", doc: "Headers of requests, all of which must match."},
	"NetworkFunctionSpec.wasm":         {doc: "A function of requests, a WebAssembly module with the handler ABI of http-wasm."},
	"NetworkFunctionSpec.native":       {doc: "A function of requests, built into the proxy."},
	"ChainMatch.slices":                {format: &formatSlice, unique: ".", doc: "S-NSSAIs that ports or pools of the ingress node name."},
	"NetworkFunctionSpec.attach":       {enum: []string{AttachPlain, AttachGPE, AttachEther}, def: AttachPlain, doc: "How packets are handed over: plain to functions that know no NSH; with NSH in VXLAN-GPE or straight on Ethernet."},
	"NetworkFunctionSpec.state":        {enum: []string{StateFlow, StateMAC, StateInterface}, def: StateFlow, doc: "How a plain function's packets find their path again: by their 5-tuple (routed functions that keep it), by source address (bridges and wires) or by the interface (functions that change the 5-tuple; each place on a path needs a pair)."},
	"NetworkFunctionSpec.capacity":     {doc: "What each instance can do; paths are laid where there is room."},
	"FunctionCapacity.concurrency":     {span: &span{lo: 1, hi: 1e6}, doc: "Packets worked on at once; more wait."},
	"FunctionCapacity.serviceTime":     {span: positive, doc: "Mean time of one packet without waiting."},
	"NetworkFunctionSpec.changesTuple": {doc: "Packets come back with other addresses or ports, as from a NAT."},
	"NetworkFunctionSpec.process":      {doc: "The function is a process that reads packets from a socket: segmentation and checksum offload are turned off at the node's ports to it."},
	"NetworkFunctionSpec.failureMode":  {enum: []string{FailClosed, FailOpen}, def: FailClosed, doc: "What happens when no instance is left: closed stops the chain, open leaves the function out."},
	"NetworkFunctionSpec.instances":    {minItems: 1, maxItems: 64, unique: "name"},
	"FunctionHealth.probe":             {enum: []string{HealthNSH, HealthTCP, HealthICMP, HealthFrame, HealthPIDFD}, doc: "nsh-echo: an echo request with NSH comes back through the function; icmp: an echo request; tcp: a connection; frame: a frame goes in at the left and comes out at the right; pidfd: the process of the instance's pidFile lives, and its end is known at once."},
	"FunctionHealth.port":              {span: realPort, doc: "For tcp."},
	"FunctionHealth.interval":          {span: positive, doc: "Time between probes; an answer may take half of it. 100ms by default."},
	"FunctionHealth.failures":          {span: &span{lo: 1, hi: 100}, def: 2, doc: "Failures in a row that take an instance out."},
	"FunctionHealth.successes":         {span: &span{lo: 1, hi: 100}, def: 3, doc: "Successes in a row that bring it back."},
	"FunctionInstance.name":            {format: &formatSubdomain, doc: "Unique among all functions' instances."},
	"FunctionInstance.node":            {format: &formatSubdomain, doc: "A ChainNode."},
	"FunctionInstance.left":            {format: &formatInterface, doc: "The node's interface towards the chain's beginning."},
	"FunctionInstance.pairs":           {maxItems: 64, unique: "left", doc: "For state: interface, instead of left and right: one pair for each place on a path."},
	"FunctionPair.left":                {format: &formatInterface},
	"FunctionPair.right":               {format: &formatInterface},
	"FunctionPair.leftMAC":             {format: &formatMAC},
	"FunctionPair.rightMAC":            {format: &formatMAC},
	"FunctionInstance.right":           {format: &formatInterface, doc: "The node's interface towards the chain's end; absent for functions with one arm."},
	"FunctionInstance.leftMAC":         {format: &formatMAC},
	"FunctionInstance.rightMAC":        {format: &formatMAC},
	"FunctionInstance.address":         {format: &formatIP, doc: "The instance's address: of icmp and tcp probes, and of packets in VXLAN-GPE."},
	"ChainNodeSpec.site":               {format: &formatLabel},
	"ChainNodeSpec.ports":              {maxItems: 64, unique: "interface"},
	"ChainPort.interface":              {format: &formatInterface},
	"ChainPort.zone":                   {span: anyPort, doc: "Keeps apart networks that use the same addresses."},
	"ChainNodeSpec.pools":              {maxItems: 256},
	"ChainPool.prefixes":               {format: &formatCIDR, minItems: 1, maxItems: 64, unique: "."},
	"ChainPort.sourceSite":             {format: &formatLabel, doc: "The site that packets come from."},
	"ChainPool.sourceSite":             {format: &formatLabel, doc: "The site that packets come from."},
	"ChainPort.dnn":                    {format: &formatSubdomain, doc: "The data network's name (DNN, TS 23.003)."},
	"ChainPool.dnn":                    {format: &formatSubdomain, doc: "The data network's name (DNN, TS 23.003)."},
	"ChainPort.slice":                  {format: &formatSlice, doc: "The S-NSSAI: SST, or SST-SD with six hexadecimal digits, such as 1-0000d1."},
	"ChainPool.slice":                  {format: &formatSlice, doc: "The S-NSSAI: SST, or SST-SD with six hexadecimal digits, such as 1-0000d1."},
	"ChainNodeSpec.border":             {doc: "The interface towards nodes of other sites, where headers carry a code (RFC 9145); needs the userspace datapath and its keys."},
	"ChainUnderlay.interface":          {format: &formatInterface},
	"ChainUnderlay.address":            {format: &formatIP, doc: "The node's address there, to which other nodes send VXLAN-GPE."},
	"ChainLink.to":                     {format: &formatSubdomain, doc: "Another ChainNode."},
	"ChainLink.rtt":                    {span: notNegative},
	"ChainLink.mbps":                   {span: notNegative, doc: "Capacity of each direction; 0 is without bound."},
}

// routedMethods are those of the Gateway API but CONNECT, which no HTTP listener takes.
var routedMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"}

// unserved are fields that the API defines and this version refuses by name:
// ignoring a match or a filter would serve requests that the author excluded.
var unserved = map[string][]string{
	"GatewaySpec":       {"infrastructure", "allowedListeners", "tls", "backendTLS", "defaultScope"},
	"BackendTLS":        {"subjectAltNames"},
	"HTTPRouteSpec":     {"useDefaultGateways"},
	"HTTPRouteRule":     {"sessionPersistence"},
	"HTTPRouteFilter":   {"externalAuth"},
	"SiteSpec":          {"coverage", "capacity"},
	"SessionAffinity":   {"idleTimeout"},
	"TrafficPolicySpec": {"rateLimit", "mirror", "circuitBreaker"},
}

// clusterFields are written by a cluster, not by a person: they come along with
// `kubectl get -o yaml`.
var clusterFields = []string{"status", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
	"deletionGracePeriodSeconds", "managedFields", "ownerReferences", "finalizers", "selfLink", "generateName"}
