package mesh

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"
)

func compileSchema(t testing.TB, kinds ...string) *jsonschema.Schema {
	t.Helper()
	text, err := Schema(kinds...)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bySchema validates each document of a text.
func bySchema(t testing.TB, s *jsonschema.Schema, text string) error {
	t.Helper()
	for _, doc := range strings.Split(text, "\n---\n") {
		j, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err != nil {
			return err
		}
	}
	return nil
}

func TestCommittedSchema(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "reference", "schema")
	names := []string{"meridian.json"}
	for _, kind := range append([]string{""}, Kinds()...) {
		file, only := "meridian.json", []string(nil)
		if kind != "" {
			file, only = strings.ToLower(kind)+".json", []string{kind}
			names = append(names, file)
		}
		want, err := Schema(only...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the types say (%v): run go generate ./api/mesh", file, err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(names, f.Name()) {
			t.Errorf("%s belongs to no kind", f.Name())
		}
	}
	if _, err := Schema("Gatway"); err == nil {
		t.Error("schema of an unknown kind")
	}
}

// valid are documents with as many fields as there are, for every kind.
const valid = smallest + `
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: second}
spec: {gatewayClassName: meridian, listeners: [{name: a, hostname: "*.example.com", port: 0, protocol: mesh.meridian.dev/EastWest}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared}
spec:
  gatewayClassName: meridian
  listeners:
  - {name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}, kinds: [{group: gateway.networking.k8s.io, kind: HTTPRoute}]}}
  - {name: b, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: shop},
      matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [a, b]}]}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: shop, namespace: data}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]
  to: [{group: mesh.meridian.dev, kind: MeshService, name: echo}, {group: "", kind: Service}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: full.route, namespace: shop, labels: {app: "1"}, annotations: {a/b: c}}
spec:
  parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop, name: ingress, sectionName: http, port: 8080}]
  hostnames: ["*.example.com", a.example.com]
  rules:
  - name: one
    matches: [{}, {path: {type: Exact, value: "/a%20b"}}, {path: {}}]
    timeouts: {request: 1s500ms, backendRequest: 0s}
    retry: {codes: [500, 429], attempts: 3, backoff: 100ms}
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, namespace: shop, name: echo, weight: 0, port: 65535}]
  - matches:
    - path: {type: RegularExpression, value: "/v[0-9]+(/.*)?"}
      method: POST
      headers: [{name: X-Version, value: two}, {type: RegularExpression, name: x-color, value: "blue|green"}]
      queryParams: [{type: Exact, name: full, value: "true"}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: a b}], add: [{name: X-Add, value: "1"}], remove: [X-Gone]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [Server]}}
    - {type: RequestMirror, requestMirror: {backendRef: {group: mesh.meridian.dev, kind: MeshService, namespace: shop, name: echo, port: 80}, percent: 5}}
    - {type: RequestMirror, requestMirror: {backendRef: {group: mesh.meridian.dev, kind: MeshService, name: echo}, fraction: {numerator: 1, denominator: 1000}}}
    - {type: URLRewrite, urlRewrite: {hostname: one.example.org, path: {type: ReplaceFullPath, replaceFullPath: /new}}}
    - {type: CORS, cors: {allowOrigins: ["https://*.example.com", "http://a.example:8080"], allowCredentials: true, allowMethods: [GET, PUT], allowHeaders: [x-a], exposeHeaders: [x-b], maxAge: 60}}
    - {type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: LocalResponse, name: sorry}}
    backendRefs:
    - {group: mesh.meridian.dev, kind: MeshService, name: echo, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [X-Internal]}}]}
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: b.example.com, port: 8443, statusCode: 308, path: {type: ReplacePrefixMatch, replacePrefixMatch: ""}}}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: LocalResponse
metadata: {name: sorry, namespace: shop}
spec: {statusCode: 503, contentType: text/html, body: "<h1>later</h1>", replaces: [502, 503]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: streams}
spec:
  gatewayClassName: meridian
  listeners:
  - {name: db, port: 5432, protocol: TCP}
  - {name: tls, port: 443, protocol: TLS, hostname: "*.example.com", tls: {mode: Passthrough}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: secure}
spec:
  gatewayClassName: meridian
  listeners:
  - name: https
    port: 443
    protocol: HTTPS
    hostname: shop.example.com
    tls:
      mode: Terminate
      certificateRefs: [{group: mesh.meridian.dev, kind: Certificate, name: shop}]
      frontendValidation: {mode: AllowMissing, caCertificateRefs: [{group: mesh.meridian.dev, kind: Certificate, name: issuers}]}
      options: {mesh.meridian.dev/min-tls-version: "1.2"}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Certificate
metadata: {name: shop}
spec: {certificateFile: /etc/meridian/shop.crt, keyFile: /etc/meridian/shop.key}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Certificate
metadata: {name: issuers}
spec: {certificateFile: /etc/meridian/issuers.crt}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: to-full}
spec:
  targetRefs: [{kind: MeshService, name: full}]
  backendTLS:
    hostname: full.example.com
    caCertificateRefs: [{group: mesh.meridian.dev, kind: Certificate, name: issuers}]
    clientCertificateRef: {group: mesh.meridian.dev, kind: Certificate, name: shop}
    options: {mesh.meridian.dev/min-tls-version: "1.3"}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: to-far}
spec:
  targetRefs: [{kind: MeshService, name: echo}]
  backendTLS: {hostname: far.example.com, wellKnownCACertificates: System}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: db}
spec:
  parentRefs: [{name: streams, sectionName: db}]
  rules: [{name: all, backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: db, port: 5432, weight: 3}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls}
spec:
  parentRefs: [{name: ingress}]
  hostnames: [calls.example.com]
  rules:
  - name: cart
    matches: [{method: {type: Exact, service: shop.v1.Cart, method: Add}, headers: [{name: canary, value: "yes"}]}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [canary]}}]
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: db, namespace: default, port: 9000, weight: 2, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: names}
spec:
  parentRefs: [{name: streams, sectionName: db}]
  rules: [{name: all, backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: db, port: 5432, weight: 3}]}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: accept}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: streams, sectionName: db}]
  acceptProxyProtocol: {from: [10.0.0.0/8, "2001:db8::/32"]}
  forwarding: {trustedNetworks: [10.0.0.0/8, "2001:db8::/32"], trustedHops: 2, forwarded: true, via: edge-7}
  slowClients: {grace: 30s, minBytesPerSecond: 100}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: send}
spec:
  targetRefs: [{kind: MeshService, name: db}]
  sendProxyProtocol: {version: v1}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: db}
spec:
  parentRefs: [{name: streams, sectionName: tls}]
  hostnames: [a.example.com, "*.b.example.com"]
  rules: [{backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: db}]}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: db}
spec: {ports: [{port: 5432, protocol: tcp}], addresses: [10.96.0.10, "2001:db8:1::a"]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: b}
spec:
  location: {type: Point, coordinates: [-180, 90, 12]}
  parent: victoria
  gateways: [{address: "edge.example.com:15443"}, {address: "[2001:db8::1]:15443"}, {address: "10.0.0.1:1"}]
  links: [{to: a, rtt: 0.8ms, price: 0.5, maxRate: 200, address: "10.0.0.1:15443"}, {to: c, rtt: 1h0m5s, price: 0, budget: {gigabytesPerDay: 1.5, resetAt: "06:30+10:00"}}]
  traffic: cordoned
  mtls: permissive
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: full}
spec:
  ports: [{name: http, port: 65535, protocol: http}]
  endpoints:
  - {address: "[fe80::1%eth0]:80", site: b, node: n1.example, weight: 1000000, workload: {cluster: c, namespace: ns, name: w}, capacity: {concurrency: 4, serviceTime: 20ms, unit: requests, pool: box}}
  - {address: "echo.example.com:80"}
  - {address: _http._tcp.echo.example.com}
  sessionAffinity: {type: Cookie, sessionName: sid, absoluteTimeout: 24h, cookieConfig: {lifetimeType: Permanent, path: /shop, sameSite: None}}
  export: {scope: mesh, sites: [b]}
  objective: {meanLatency: 40ms, p99Latency: 250ms, errorPercent: 0.5}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo}]
  loadBalancing: {algorithm: ringHash, hashBalanceFactor: 125, slowStart: {window: 30s, aggression: 1.5, minWeightPercent: 5}}
  outlierDetection:
    {consecutiveFailures: 0, successRateMargin: 20, interval: 5s, minRequests: 10, baseEjectionTime: 5s, maxEjectionTime: 1m, maxEjectionPercent: 100, panicThreshold: 30}
  siteSharing: {policy: weightedRoundRobin, stayHome: 1.5, shedAfter: 250ms, priorityClasses: [{name: batch, header: X-Class, values: [batch, "bulk mail"], shedAfter: 20ms}], pins: [{from: a, to: [{site: a, weight: 3}, {site: b, weight: 0}]}]}
  timeouts: {connect: 1s, idle: 1.5m, request: 10s}
  retries: {attempts: 0}
  connections: {maxAge: 30m, maxRequests: 1000}
  clientPosition: {geoHeader: X-Geo, latitudeHeader: x-lat, longitudeHeader: x-lon}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge-1}
spec:
  site: melbourne
  ports: [{interface: eth1, zone: 7}]
  underlay: {interface: eth0, address: 192.0.2.1}
  links: [{to: edge-2, rtt: 1ms, mbps: 1000}]
  redirect: {controlGroups: [/kubepods.slice], proxy: {controlGroup: /meridian.slice, user: 998, addresses: ["192.0.2.1:15001", "[2001:db8::1]:15001"]}, destinations: [{network: 10.96.0.0/12}, {network: "2001:db8:1::/64", ports: [80, 443]}], exclude: {destinations: [{network: 10.96.0.1/32, ports: [443]}], ports: [22], users: [0, 998], controlGroups: [/kubepods.slice/quiet]}, failureMode: closed}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: firewall}
spec:
  attach: plain
  state: flow
  changesTuple: false
  process: false
  failureMode: open
  health: {probe: tcp, port: 8080, interval: 100ms, failures: 2, successes: 3}
  instances:
  - {name: fw-1, node: edge-1, left: fw1l, right: fw1r, leftMAC: "02:00:00:00:00:01", rightMAC: "02:00:00:00:00:02", address: 10.9.1.2}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: web}
spec:
  functions: [firewall]
  ingress: {node: edge-1, interface: eth1}
  egress: {node: edge-2}
  symmetric: true
  paths: 2
  latencyBudget: 20ms
  demand: {packetsPerSecond: 1000, mbps: 10}
  failureMode: closed
  update: immediate
  match:
  - interfaces: [eth1]
    sources: [10.1.0.0/16]
    destinations: [10.2.0.0/16, 10.3.0.0/16]
    protocols: [tcp]
    sourcePorts: ["1024-65535"]
    destinationPorts: ["80", "8000-8999"]
    dscp: [0, 46]
    sourceSites: [north]
    dnns: [internet, ims.mnc001]
    slices: ["1", 1-0000d1]
  branches:
  - {after: firewall, chain: clean, match: {protocols: [udp], destinationPorts: ["53"]}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: orders}
spec:
  targetRefs: [{kind: MeshService, name: shop}, {group: gateway.networking.k8s.io, kind: Gateway, name: in, sectionName: web}]
  action: allow
  dryRun: true
  rules:
  - name: ops
    from: [{identities: ["spiffe://mesh.example/site/*/ns/ops/*"], sites: [north], namespaces: [ops], sources: [10.0.0.0/8], unauthenticated: true}]
    to: [{ports: [80], methods: [GET], hosts: ["*.example.com"], paths: [{type: Exact, value: /a}], headers: [{name: X-Team, value: ops}]}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: PeerAuthentication
metadata: {name: all}
spec: {mtls: permissive, ports: [{port: 80, mtls: strict}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: GeoFence
metadata: {name: victoria}
spec:
  targetRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo}]
  allow:
    sites: [melbourne]
    parents: [victoria]
    areas:
    - type: Polygon
      coordinates: [[[140, -39], [150, -39, 7], [150, -34], [140, -34], [140, -39]], [[144, -38], [145, -38], [145, -37], [144, -38]]]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: requests}
spec:
  functions: [enrich, police, tag]
  failureMode: open
  ingress: {gateway: ingress, listener: http}
  match:
  - hosts: [shop.example.com, "*.example.org"]
    paths: [{value: /api}, {type: Exact, value: /}]
    methods: [GET, POST]
    headers: [{name: x-tier, value: gold}]
  - {}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: routed}
spec: {functions: [enrich]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: enrich}
spec:
  failureMode: open
  native:
    headers:
      request: {set: [{name: x-site, value: "${source.site}/$$5"}], add: [{name: x-path, value: "${chain.spi}:${chain.si} ${request.header.X-A}"}], remove: [x-gone]}
      response: {set: [{name: x-status, value: "${response.status}"}]}
      clientPosition: {geoHeader: x-geo}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: module}
spec: {wasm: {file: /opt/f.wasm, config: "a: b", memoryMiB: 32, budget: 500us}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AfSfcRequirement
metadata: {name: video}
spec:
  afSfcReq: {sfcIdUl: web, sfcIdDl: back, spVal: {presenceInfoList: {a: {praId: north}}}}
  dnn: internet
  sliceInfo: {sst: 1, sd: 0000D1}
  ueIpv4: 10.60.0.7
  ueIpv6: "2001:db8::7"
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: login}
spec: {external: {service: {name: echo, port: 80}, timeout: 100ms, pathPrefix: /check, headers: [x-user], maxBody: 1024}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: police}
spec: {native: {policer: {requestsPerSecond: 0.5, burst: 3, per: client}}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: tag}
spec: {native: {tagger: {header: x-app, default: other, tags: [{name: video, hosts: [v.example, "*.v.example"]}]}}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: nat}
spec:
  state: interface
  capacity: {concurrency: 2, serviceTime: 1ms}
  instances:
  - {name: nat-1, node: edge-1, pairs: [{left: n1l, right: n1r, leftMAC: "02:00:00:00:00:03", rightMAC: "02:00:00:00:00:04"}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrustBundle
metadata: {name: mesh}
spec:
  trustDomain: mesh.example
  roots: ["-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"]
  denied: [{id: spiffe://mesh.example/site/north/ns/meridian/sa/edge-1, reason: stolen}, {serial: 1f}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge-3}
spec:
  site: geelong
  border: {interface: wan, address: 198.51.100.3}
  ports: [{interface: n6, sourceSite: north, dnn: internet, slice: 1-0000d1}]
  pools: [{prefixes: [10.60.0.0/16], dnn: ims, slice: "1", sourceSite: south}]`

func TestSchemaTakesValid(t *testing.T) {
	if err := bySchema(t, compileSchema(t), valid); err != nil {
		t.Error(err)
	}
	mustParse(t, valid)
	// The text must use every field there is, or the agreement below says little.
	var all any
	text, err := yaml.YAMLToJSON([]byte("- " + strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(valid), "\n", "\n  "), "\n  ---\n  ", "\n- ")))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			for k, x := range v {
				used[k] = true
				walk(x)
			}
		}
	}
	walk(all)
	for key := range rules {
		if _, name, _ := strings.Cut(key, "."); !used[name] {
			t.Errorf("no document uses %s", key)
		}
	}
}

// Schema and ParseYAML must both refuse each change of a valid document.
func TestSchemaAgreesWithParseYAML(t *testing.T) {
	s := compileSchema(t)
	for _, change := range [][2]string{
		{"sites: [melbourne]\n    parents", "sites: [melbourne, melbourne]\n    parents"}, {"parents: [victoria]", "parents: [Victoria]"}, {"- type: Polygon", "- type: MultiPolygon"},
		{"[140, -39]]", "[140, x]]"}, {"[140, -39]]", "140]"}, {"kind: MeshService, name: echo}]\n  allow", "kind: Service, name: echo}]\n  allow"},
		{"gigabytesPerDay: 1.5", "gigabytesPerDay: 0"}, {"06:30+10:00", "6:30"}, {"06:30+10:00", "24:00Z"}, {"06:30+10:00", "06:30 AEST"},
		{"unit: requests", "unit: connections"}, {"header: X-Class", "header: \"X Class\""}, {"values: [batch, \"bulk mail\"]", "values: []"}, {"shedAfter: 20ms", "shedAfter: 0s"}, {"name: batch, header", "name: Batch, header"},
		{"kind: Gateway", "kind: Gatway"}, {"kind: Site", "kind: Gateway"},
		{"gateway.networking.k8s.io/v1\nkind: Gateway", "gateway.networking.k8s.io/v1beta1\nkind: Gateway"},
		{"{name: ingress}\nspec", "{name: Ingress}\nspec"}, {"{name: ingress}\nspec", "{name: 12}\nspec"}, {"{name: ingress}\nspec", "{namespace: x}\nspec"},
		{"gatewayClassName: meridian", "gatewayClassName: istio"}, {"value: 127.0.0.1}", "value: localhost}"}, {"type: IPAddress", "type: Hostname"},
		{"port: 8080, protocol: HTTP}", "port: 65536, protocol: HTTP}"}, {"port: 8080, protocol: HTTP}", "port: -1, protocol: HTTP}"},
		{"port: 8080, protocol: HTTP}", `port: "8080", protocol: HTTP}`}, {"port: 8080, protocol: HTTP}", "port: 80.5, protocol: HTTP}"},
		{"port: 8080, protocol: HTTP}", "port: 8080, protocol: SCTP}"}, {"port: 8080, protocol: HTTP}", "port: 8080, protocol: HTTPS, tls: {mode: Off}}"},
		{"certificateFile: /etc", "certificateFile: etc"}, {"keyFile: /etc", "keyfile: /etc"}, {"trustDomain: mesh", "trustDomain: Mesh"}, {"serial: 1f", "serial: 1F"}, {"sa/edge-1", "sa/edge/1"}, {"id: spiffe:", "id: https:"}, {"-----BEGIN CERT", "-----BEGIN KEY"}, {"mtls: permissive", "mtls: off"},
		{"wellKnownCACertificates: System", "wellKnownCACertificates: All"}, {"mode: AllowMissing", "mode: AllowInsecureFallback"},
		{"port: 8080, protocol: HTTP}", "port: 8080}"}, {"listeners: [{name: http, port: 8080, protocol: HTTP}]", "listeners: []"},
		{"  parentRefs: [{name: ingress}]\n", ""}, {"group: mesh.meridian.dev, kind: MeshService, name: echo, port: 80", "name: echo, port: 80"},
		{"kind: MeshService, name: echo, port: 80", "kind: Service, name: echo, port: 80"}, {"port: 80}]\n---", "port: 80, weight: 1.5}]\n---"},
		{"port: 80}]\n---", "port: 80, weight: -1}]\n---"}, {"port: 80}]\n---", "port: 80, filters: [{}]}]\n---"}, {"name: echo, port: 80", "name: echo, port: 0"},
		{"type: Exact", "type: Regex"}, {"type: RegularExpression, value: \"/v[0-9]+(/.*)?\"", "type: Exact, value: \"/v[0-9]+(/.*)?\""},
		{"method: POST", "method: CONNECT"}, {"method: POST", "method: post"}, {"name: X-Version, value: two", "name: X Version, value: two"},
		{"name: X-Version, value: two", "name: X-Version"}, {"name: X-Version, value: two", "name: X-Version, value: \"\""},
		{"type: Exact, name: full", "type: Prefix, name: full"}, {"value: a b", "value: \" a\""}, {"value: a b", "value: \"a\\nb\""},
		{"remove: [X-Gone]", "remove: [X-Gone, X-Gone]"}, {"remove: [X-Gone]", "remove: [\"X:\"]"}, {"type: RequestHeaderModifier", "type: ExternalAuth"},
		{"type: RequestHeaderModifier, requestHeader", "type: ResponseHeaderModifier, requestHeader"}, {"{type: CORS, cors", "{type: CORS, corss"},
		{", percent: 5", ", percent: 101"}, {", percent: 5", ", percent: 5, fraction: {numerator: 1}"}, {"denominator: 1000", "denominator: 0"}, {"numerator: 1,", "numerator: -1,"},
		{"backendRef: {group: mesh.meridian.dev, kind: MeshService, name: echo}", "backendRef: {name: echo}"}, {"hostname: one.example.org", "hostname: \"*.example.org\""},
		{"replaceFullPath: /new", "replaceFullPath: new"}, {"replaceFullPath: /new", "replacePrefixMatch: /new"}, {"type: ReplaceFullPath, ", ""},
		{"https://*.example.com", "ftp://a.example"}, {"https://*.example.com", "https://a.*.example"}, {"https://*.example.com", "https://a.example/x"},
		{"allowCredentials: true", "allowCredentials: 1"}, {"allowCredentials: true", "allowCredentials: \"true\""}, {"[GET, PUT]", "[GET, GETS]"}, {"maxAge: 60", "maxAge: -1"},
		{"kind: LocalResponse, name: sorry", "kind: Filter, name: sorry"}, {"scheme: https", "scheme: ws"}, {"port: 8443", "port: 0"}, {"statusCode: 308", "statusCode: 304"},
		{"replacePrefixMatch: \"\"", "replacePrefixMatch: x"}, {"statusCode: 503", "statusCode: 100"}, {"replaces: [502, 503]", "replaces: [302]"},
		{"/a%20b", "a"}, {"/a%20b", "/a b"}, {"/a%20b", "/a%2"}, {"/a%20b", "/a?b"},
		{"a.example.com]", "A.example.com]"}, {"a.example.com]", "a.example.com, a.example.com]"}, {`["*.example.com"`, `["*"`}, {`["*.example.com"`, `["a.*.com"`},
		{"request: 1s500ms", "request: 1.5s"}, {"request: 1s500ms", "request: 1"}, {"request: 1s500ms", "request: -1s"},
		{`app: "1"`, "app: 1"}, {`app: "1"`, `app: "a b"`}, {"[-180, 90, 12]", "[-181, 90]"}, {"[-180, 90, 12]", "[0, -90.1]"}, {"[-180, 90, 12]", "[0]"},
		{"[-180, 90, 12]", "[0, 0, 0, 0]"}, {"type: Point", "type: Polygon"}, {"edge.example.com:15443", "edge.example.com"}, {"edge.example.com:15443", "edge_1:80"},
		{"rtt: 0.8ms", "rtt: 0s"}, {"rtt: 0.8ms", "rtt: 0.0ms"}, {"rtt: 0.8ms", "rtt: soon"}, {"rtt: 0.8ms", "rtt: 3"}, {"price: 0.5", "price: -0.5"},
		{"price: 0.5", `price: "0.5"`}, {"{name: b}", "{name: b.c}"}, {"protocol: http}]\n  endpoints:\n", "protocol: grpc}]\n  endpoints:\n"},
		{"127.0.0.1:9001", "local_host:9001"}, {"127.0.0.1:9001", "127.0.0.1"}, {"127.0.0.1:9001", "::1:80"}, {"weight: 1000000", "weight: 1000001"},
		{"concurrency: 4, ", ""}, {"concurrency: 4, ", "concurrency: 0, "}, {"namespace: ns, ", ""}, {"scope: mesh, ", ""}, {"scope: mesh, ", "scope: world, "},
		{"sites: [b]", "sites: [b, b]"}, {"algorithm: ringHash", "algorithm: best"}, {"sameSite: None", "sameSite: none"}, {"type: Cookie", "type: Magic"},
		{"window: 30s, ", ""}, {"window: 30s", "window: 0s"}, {"consecutiveFailures: 0", "consecutiveFailures: -1"}, {"successRateMargin: 20", "successRateMargin: 101"}, {"maxRequests: 1000", "maxRequests: -1"},
		{"_http._tcp.echo.example.com", "_http.echo.example.com"}, {"sessionName: sid", "sessionName: a b"}, {"absoluteTimeout: 24h", "absoluteTimeout: 1.5h"}, {"policy: weightedRoundRobin", "policy: fair"}, {"stayHome: 1.5", "stayHome: 0.9"},
		{"connect: 1s", "connect: 0s"}, {"attempts: 0", "attempts: 11"}, {"attempts: 0", "attempts: -1"}, {"X-Geo", "X Geo"}, {", longitudeHeader: x-lon", ""},
		{"targetRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo}]", "targetRefs: []"}, {"retries:", "retrys:"}, {"node: n1.example", "node: N1"},
	} {
		text := strings.Replace(valid, change[0], change[1], 1)
		if text == valid {
			t.Errorf("%q is not in the valid documents", change[0])
			continue
		}
		if err := bySchema(t, s, text); err == nil {
			t.Errorf("schema takes %s", change[1])
		}
		if _, err := ParseYAML("bad.yaml", []byte(text)); err == nil {
			t.Errorf("ParseYAML takes %s", change[1])
		}
	}
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	s := compileSchema(t)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		o, err := ParseYAML(file, data)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, c := range Check(o) {
			t.Error(c)
		}
		if err := bySchema(t, s, string(data)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// The kinds must be the lists of Objects, so that nothing that is read is lost.
func TestKindsFitObjects(t *testing.T) {
	ot := reflect.TypeFor[Objects]()
	var lists []string
	for i := range ot.NumField() {
		if f := ot.Field(i); f.Type.Kind() == reflect.Slice {
			lists = append(lists, f.Type.Elem().Elem().Name())
		}
	}
	kinds := Kinds()
	slices.Sort(kinds)
	slices.Sort(lists)
	if !slices.Equal(lists, kinds) {
		t.Errorf("Objects holds %v, kinds are %v", lists, kinds)
	}
}
