package archtest

// module is the path of the root module. The second one, cmd/meridian-scheduler,
// has its own go.mod and is outside these rules.
const module = "github.com/meridian-mesh/meridian"

// room is one row of the import table. A row speaks for the package of its path
// and, unless a longer row does, for the packages below it.
type room struct {
	// path is relative to the module.
	path string
	// pure rooms have no network, files, clock, goroutines or logging: time and
	// events come in as arguments, actions go out as values.
	pure bool
	// may lists the rooms of this module that non-test code may import; "x/..."
	// means x and what is below. A package may always import below its own room.
	may []string
}

// vocabulary is what everybody may speak.
var vocabulary = []string{"api/mesh", "geo/..."}

// decision are the pure rooms of the controller. The node imports them too: it
// plans for itself when its controller is silent.
var decision = []string{"controller/price", "controller/plan", "controller/world", "controller/membership", "controller/fence", "controller/budget"}

// rooms is the import table, top to bottom as in ARCHITECTURE.md:
// cmd -> {edgeproxy, chaining/agent, controller, scheduler/plugin, testbed}
// -> pure rooms -> {api/mesh, geo, internal}.
var rooms = []room{
	// Vocabulary.
	{path: "api/mesh", pure: true},
	{path: "api/kube", pure: true, may: vocabulary},
	{path: "geo", pure: true, may: []string{"geo/..."}},

	// The proxy: pure rooms first.
	{path: "edgeproxy/stream", pure: true},
	{path: "edgeproxy/http1", pure: true, may: []string{"edgeproxy/stream"}},
	{path: "edgeproxy/http2", pure: true, may: []string{"edgeproxy/stream"}},
	{path: "edgeproxy/function", pure: true, may: with(vocabulary, "edgeproxy/stream")},
	{path: "edgeproxy/function/guest"},
	{path: "edgeproxy/function/wasm", may: with(vocabulary, "edgeproxy/stream", "edgeproxy/function")},
	{path: "edgeproxy/function/wasm/wasmtest"},
	{path: "edgeproxy/route", pure: true, may: with(vocabulary, "edgeproxy/stream", "edgeproxy/function")},
	{path: "edgeproxy/authz", pure: true, may: with(vocabulary, "edgeproxy/stream", "edgeproxy/route", "edgeproxy/function")},
	{path: "edgeproxy/lb", pure: true, may: with(with(vocabulary, decision...), "internal/maglev")},
	{path: "edgeproxy/loadheader", pure: true},
	{path: "edgeproxy/outlier", pure: true, may: vocabulary},
	{path: "edgeproxy/clienthello", pure: true},
	{path: "edgeproxy/capsule", pure: true},
	{path: "edgeproxy/grpcweb", pure: true, may: []string{"edgeproxy/stream"}},
	{path: "edgeproxy/proxyproto", pure: true},
	{path: "edgeproxy/limit", pure: true, may: vocabulary},
	{path: "edgeproxy/exchange", pure: true, may: with(vocabulary, "edgeproxy/stream", "edgeproxy/route", "edgeproxy/lb", "edgeproxy/limit", "edgeproxy/outlier")},
	{path: "edgeproxy/inband", pure: true, may: vocabulary},
	{path: "edgeproxy/share", pure: true, may: with(with(vocabulary, decision...), "edgeproxy/inband", "edgeproxy/limit")},
	// Endpoint state and the bundle a request reads: shared memory, but no I/O.
	// Idle connections are kept as a loop's handles.
	{path: "edgeproxy/upstream", may: with(with(vocabulary, decision...), "edgeproxy/loop", "edgeproxy/lb", "edgeproxy/outlier", "edgeproxy/limit")},
	{path: "edgeproxy/tlsio", may: []string{"edgeproxy/loop", "internal/spiffe", "internal/beat"}},
	{path: "edgeproxy/view", may: with(with(vocabulary, decision...), "internal/spiffe", "edgeproxy/tlsio", "edgeproxy/stream", "edgeproxy/route", "edgeproxy/authz", "edgeproxy/function", "edgeproxy/lb", "edgeproxy/upstream", "edgeproxy/limit", "edgeproxy/outlier")},
	// The server and its I/O rooms.
	{path: "edgeproxy", may: with(with(vocabulary, decision...), "edgeproxy/...", "internal/...")},

	// Chains.
	{path: "chaining/nsh", pure: true},
	{path: "chaining/path", pure: true, may: with(vocabulary, "controller/price", "chaining/nsh", "chaining/flow", "internal/maglev")},
	{path: "chaining/flow", pure: true},
	{path: "chaining/oam", pure: true, may: []string{"chaining/nsh"}},
	{path: "chaining/function", pure: true, may: []string{"chaining/flow", "chaining/nsh", "chaining/function/...", "edgeproxy/clienthello"}},
	{path: "chaining", may: with(vocabulary, "chaining/...", "controller/price", "internal/...")},

	// Placement.
	{path: "scheduler/traffic", pure: true, may: vocabulary},
	{path: "scheduler/placement", pure: true, may: with(vocabulary, "scheduler/traffic", "controller/price")},
	{path: "scheduler/cluster", may: with(vocabulary, "api/kube", "scheduler/placement")},
	{path: "scheduler", may: with(vocabulary, "scheduler/...", "internal/...")},

	// The site controller: pure rooms first.
	{path: "controller/price", pure: true, may: vocabulary},
	{path: "controller/fence", pure: true, may: vocabulary},
	{path: "controller/world", pure: true, may: with(vocabulary, "controller/price", "controller/membership", "controller/fence")},
	{path: "controller/membership", pure: true, may: vocabulary},
	{path: "controller/budget", pure: true, may: vocabulary},
	{path: "controller/history", pure: true, may: vocabulary},
	{path: "controller/login", pure: true},
	{path: "controller/journal", pure: true, may: vocabulary},
	// As pure rooms are, but for the client that stands beside the types it judges.
	{path: "controller/check", may: with(vocabulary, "controller/membership", "controller/siteapi")},
	{path: "controller/plan", pure: true, may: with(vocabulary, "controller/price", "controller/world", "controller/membership", "chaining/path", "scheduler/placement", "scheduler/traffic")},
	{path: "controller/ca", pure: true, may: []string{"internal/spiffe"}},
	{path: "controller/flows", pure: true, may: with(vocabulary, "scheduler/traffic")},
	{path: "controller", may: with(vocabulary, "api/kube", "controller/...", "scheduler/traffic", "internal/...")},

	// Proof: simulators, emulators, load, the demo. Real processes are started as
	// binaries, so nothing here imports edgeproxy but how load is told.
	{path: "testbed", may: with(with(vocabulary, decision...), "testbed/...", "internal/...", "controller/siteapi", "controller/join", "controller/store", "edgeproxy/loadheader")},
	{path: "testbed/cluster"},
	{path: "testbed/sim/placement", pure: true, may: with(vocabulary, "scheduler/placement", "scheduler/traffic")},
	{path: "testbed/wire", pure: true},
	{path: "testbed/scenario", pure: true},
	{path: "testbed/report", pure: true, may: []string{"testbed/scenario"}},
	// The simulator runs the proxy's decision code itself, in virtual time: a copy
	// would prove nothing. So it may import those pure rooms, but nothing with I/O.
	{path: "testbed/sim", pure: true, may: with(with(vocabulary, decision...), "edgeproxy/share", "edgeproxy/inband", "edgeproxy/lb", "testbed/sim/...")},
	{path: "testbed/sim/optimum", pure: true, may: []string{"controller/price"}},
	{path: "testbed/sim/scenario", may: with(vocabulary, "testbed/sim", "testbed/topo")},
	{path: "testbed/sim/whatif", pure: true, may: with(with(vocabulary, decision...), "edgeproxy/share", "testbed/sim", "testbed/sim/policy")},
	{path: "testbed/sim/compare", may: with(vocabulary, "testbed/sim/...")},

	// Plumbing.
	{path: "internal/maglev", pure: true},
	{path: "internal/beat"},
	{path: "internal/spiffe", pure: true},
	{path: "internal", may: []string{"api/mesh", "internal/..."}},
	{path: "internal/schemagen", may: []string{"api/mesh", "api/kube"}},

	// Thin mains.
	{path: "cmd", may: []string{"..."}},
	{path: "examples", may: with(vocabulary, "edgeproxy/function/guest")},
}

// ownedDependency says which rooms may import a module from outside. A new
// dependency is a decision, so what is not listed is refused. Tests are free.
type ownedDependency struct {
	path  string
	rooms []string
	why   string
}

var dependencies = []ownedDependency{
	{"github.com/nats-io/nats-server/v2", []string{"controller/natsd"}, "one embedded server per site, none on the node"},
	{"github.com/nats-io/nats.go", []string{"internal/bus"}, "subjects, buckets and reconnection are decided in one place"},
	{"github.com/nats-io/nkeys", []string{"internal/bus", "controller/natsd", "controller/join", "controller/ca"}, "keys of sites"},
	{"github.com/nats-io/jwt/v2", []string{"controller/natsd", "controller/ca"}, "accounts and permissions"},
	{"github.com/cilium/ebpf", []string{"chaining/datapath"}, "one owner of BPF"},
	{"github.com/vishvananda/netlink", []string{"chaining/datapath"}, "filters for kernels without TCX, routes and neighbours"},
	{"github.com/tetratelabs/wazero", []string{"edgeproxy/function"}, "WASM runs behind one interface"},
	{"k8s.io", []string{"controller/kube", "scheduler/plugin", "scheduler/args", "scheduler/cluster"}, "only the bridge, the scheduler and placement speak to a cluster"},
	{"sigs.k8s.io/yaml", []string{"api/mesh", "cmd", "internal/schemagen"}, "YAML output"},
	{"go.yaml.in/yaml/v3", []string{"api/mesh", "cmd", "testbed/sim/scenario"}, "documents are read with line and column in one place; scenarios are no documents of the mesh"},
	{"github.com/paulmach/orb", []string{"geo", "edgeproxy", "controller", "testbed", "cmd"}, "geo's points are orb.Point"},
	{"github.com/paulmach/orb/geojson", nil, "it drags a database driver into the binary: api/mesh reads GeoJSON points itself"},
	{"github.com/spf13", []string{"cmd"}, "the command line"},
	{"charm.land/bubbletea/v2", []string{"cmd/meridian/cli"}, "top on a terminal"},
	{"github.com/HdrHistogram/hdrhistogram-go", []string{"testbed"}, "load generators"},
	{"golang.org/x/net", []string{"edgeproxy/resolve"}, "DNS messages: the standard resolver tells no time to live"},
	{"golang.org/x/sys", []string{"edgeproxy", "chaining", "testbed", "internal", "cmd"}, "sockets, epoll, affinity"},
	{"golang.org/x/term", []string{"cmd/meridian/cli"}, "passwords are not shown"},
	{"golang.org/x/time", []string{"controller", "testbed"}, "rate limits off the hot path"},
	{"golang.org/x/crypto", []string{"controller/ca", "controller/login"}, "keys and passwords"},
	{"github.com/google/gopacket", []string{"cmd", "testbed"}, "packets for the CLI and for tests, never on the node"},
}

// binaryLimits name what must not be linked into a program, by import path prefix.
var binaryLimits = []struct {
	roots  []string // packages, relative to the module; missing ones are passed over
	refuse []string
	// netHTTP lists the only rooms of this module in the program that may import net/http.
	netHTTP []string
	why     string
}{
	{
		roots: []string{"cmd/edgeproxy", "edgeproxy", "edgeproxy/..."},
		refuse: []string{
			"github.com/nats-io/nats-server", "k8s.io", "sigs.k8s.io/controller-runtime", "google.golang.org/grpc",
			"google.golang.org/protobuf", "github.com/golang/protobuf", "github.com/prometheus",
			"go.opentelemetry.io", "github.com/cilium/ebpf", "github.com/spf13/viper",
		},
		netHTTP: []string{"edgeproxy/admin"},
		why:     "a node of 2 GB pays for every one of them, and net/http on the data path costs 3.3 times HAProxy's CPU",
	},
	{
		roots: []string{"cmd/chainagent", "chaining/..."},
		refuse: []string{
			"github.com/nats-io/nats-server", "k8s.io", "sigs.k8s.io/controller-runtime", "google.golang.org/grpc",
			"google.golang.org/protobuf", "github.com/prometheus", "go.opentelemetry.io",
		},
		netHTTP: []string{"chaining/agent"},
		why:     "it runs on every node that carries a chain",
	},
}

// impureImports are packages that a pure room's non-test code must not import.
var impureImports = []string{
	"net", "net/http", "net/http/httptest", "net/http/httputil", "net/rpc", "net/smtp", "crypto/tls",
	"os", "os/exec", "os/signal", "os/user", "io/ioutil", "path/filepath", "plugin",
	"syscall", "golang.org/x/sys/unix", "log", "log/slog", "log/syslog", "testing",
	"context", "runtime/pprof", "embed",
}

// impureCalls are functions, by import path, that a pure room must not name: the
// clock, and printing, which is logging by another name.
var impureCalls = map[string][]string{
	"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"},
	"fmt":  {"Print", "Printf", "Println"},
}

// roomlessNames say nothing of what a package does.
var roomlessNames = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "shared", "lib", "base"}

// maxLines is the size past which a file says why: a comment before its first
// declaration, or the package doc, gives the reason after "long because".
const maxLines = 600

func with(base []string, more ...string) []string {
	return append(base[:len(base):len(base)], more...)
}
