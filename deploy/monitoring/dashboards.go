package main

// panel is a graph; what is not said is the same for all.
type panel struct {
	title, about string
	unit         string // Grafana's name of it
	stack        bool
	queries      []query
}

type query struct{ expr, legend string }

// row is panels side by side.
type row []panel

type dashboard struct {
	file, uid, title string
	// of is a metric by whose label instance the reader chooses.
	of   string
	rows []row
}

// sel is the selector of the instances that the reader chose.
const sel = `instance=~"$instance"`

var dashboards = []dashboard{
	{
		file: "meridian-proxies.json", uid: "meridian-proxies", title: "Meridian: proxies", of: "meridian_listener_connections",
		rows: []row{
			{
				{title: "Requests", about: "By service and class of status; 0 is no response at all.", unit: "reqps", stack: true, queries: []query{
					{`sum by (service, class) (rate(meridian_requests_total{` + sel + `}[$__rate_interval]))`, "{{service}} {{class}}"},
				}},
				{title: "Why requests fail", about: "By response flag: UF and UH are the endpoints', NR is no route, SH is full everywhere, UO is the memory limit.", unit: "reqps", stack: true, queries: []query{
					{`sum by (flag) (rate(meridian_requests_total{flag!="", ` + sel + `}[$__rate_interval]))`, "{{flag}}"},
				}},
				{title: "Latency", about: "From a request's head to the last byte of its response.", unit: "s", queries: []query{
					{`histogram_quantile(0.5, sum by (le) (rate(meridian_request_duration_seconds_bucket{` + sel + `}[$__rate_interval])))`, "median"},
					{`histogram_quantile(0.99, sum by (le) (rate(meridian_request_duration_seconds_bucket{` + sel + `}[$__rate_interval])))`, "99th percentile"},
				}},
			},
			{
				{title: "In flight at endpoints", about: "Attempts that wait for their response.", unit: "short", queries: []query{
					{`sum by (service, site) (meridian_upstream_requests_in_flight{` + sel + `})`, "{{service}} {{site}}"},
				}},
				{title: "Failed attempts", about: "Attempts without a whole response, and retries.", unit: "reqps", queries: []query{
					{`sum by (service) (rate(meridian_upstream_failures_total{` + sel + `}[$__rate_interval]))`, "{{service}}"},
					{`sum(rate(meridian_retries_total{` + sel + `}[$__rate_interval]))`, "retries"},
				}},
				{title: "Endpoints' part of their weight", about: "0 is ejected, less than 1 warms up.", unit: "percentunit", queries: []query{
					{`min by (service) (meridian_upstream_share{` + sel + `})`, "{{service}}, least"},
					{`avg by (service) (meridian_upstream_share{` + sel + `})`, "{{service}}, mean"},
				}},
			},
			{
				{title: "Connections", about: "Of clients, open now.", unit: "short", queries: []query{
					{`sum by (address) (meridian_listener_connections{` + sel + `})`, "{{address}}"},
					{`sum(meridian_tunnels{` + sel + `})`, "tunnels"},
				}},
				{title: "TCP and UDP", about: "Connections and sessions that are passed on whole, open now.", unit: "short", queries: []query{
					{`sum by (service) (meridian_tcp_connections{` + sel + `})`, "TCP {{service}}"},
					{`sum by (service) (meridian_udp_sessions{` + sel + `})`, "UDP {{service}}"},
				}},
				{title: "Bytes of clients", about: "Read from and written to them.", unit: "Bps", queries: []query{
					{`sum(rate(meridian_received_bytes_total{` + sel + `}[$__rate_interval]))`, "received"},
					{`sum(rate(meridian_sent_bytes_total{` + sel + `}[$__rate_interval]))`, "sent"},
				}},
			},
			{
				{title: "Processor", about: "Time of the process, and turns of event loops over 5 ms.", unit: "short", queries: []query{
					{`sum by (instance) (rate(process_cpu_seconds_total{` + sel + `}[$__rate_interval]))`, "{{instance}} processors"},
					{`sum by (instance) (rate(meridian_loop_slow_turns_total{` + sel + `}[$__rate_interval]))`, "{{instance}} slow turns"},
				}},
				{title: "Memory", about: "Resident, and the limit where there is one.", unit: "bytes", queries: []query{
					{`sum by (instance) (process_resident_memory_bytes{` + sel + `})`, "{{instance}}"},
					{`sum by (instance) (meridian_memory_limit_bytes{` + sel + `})`, "{{instance}}, limit"},
				}},
				{title: "Configuration", about: "Age of what is in force, and refusals.", unit: "s", queries: []query{
					{`max by (instance) (meridian_config_age_seconds{` + sel + `})`, "{{instance}}, age"},
					{`sum by (instance) (increase(meridian_config_refusals_total{` + sel + `}[$__rate_interval]))`, "{{instance}}, refused"},
				}},
			},
		},
	},
	{
		file: "meridian-sites.json", uid: "meridian-sites", title: "Meridian: sites", of: "meridian_build_info",
		rows: []row{
			{
				{title: "Where requests are served", about: "Planned share of a site's own requests, by the site that serves them.", unit: "percentunit", stack: true, queries: []query{
					{`avg by (service, site) (meridian_share_ratio{` + sel + `})`, "{{service}} at {{site}}"},
				}},
				{title: "Price of other sites", about: "Delay that a request there costs everybody, round trip included.", unit: "s", queries: []query{
					{`avg by (service, site) (meridian_remote_price_seconds{` + sel + `})`, "{{service}} at {{site}}"},
				}},
				{title: "Age of what is known of others", about: "Of the newest load report. Old news fades out of the plan.", unit: "s", queries: []query{
					{`max by (site) (meridian_remote_report_age_seconds{` + sel + `})`, "{{site}}"},
				}},
			},
			{
				{title: "Sent to other sites", about: "Bytes of requests and their answers.", unit: "Bps", queries: []query{
					{`sum by (site) (rate(meridian_remote_bytes_total{` + sel + `}[$__rate_interval]))`, "{{site}}"},
				}},
				{title: "Taken from other sites", about: "Requests that proxies of other sites handed in.", unit: "reqps", queries: []query{
					{`sum by (peer_site, service) (rate(meridian_peer_requests_total{` + sel + `}[$__rate_interval]))`, "{{peer_site}} for {{service}}"},
				}},
				{title: "Suspect sites and refused requests", about: "Sites to which nothing is sent, and requests that no site has room for.", unit: "short", queries: []query{
					{`max by (site) (meridian_remote_suspect{` + sel + `})`, "{{site}} suspect"},
					{`sum by (service) (rate(meridian_requests_shed_total{` + sel + `}[$__rate_interval]))`, "{{service}} shed"},
				}},
			},
			{
				{title: "Other sites, as controllers see them", about: "By status.", unit: "short", queries: []query{
					{`sum by (instance, status) (meridian_peers{` + sel + `})`, "{{instance}} {{status}}"},
				}},
				{title: "Nodes", about: "By status, and those that do not serve the newest configuration.", unit: "short", queries: []query{
					{`sum by (instance, status) (meridian_nodes{` + sel + `})`, "{{instance}} {{status}}"},
					{`sum by (instance) (meridian_nodes_behind{` + sel + `})`, "{{instance}} behind"},
				}},
				{title: "Daily budgets of links", about: "Used part, 1 is all of it.", unit: "percentunit", queries: []query{
					{`max by (instance, site) (meridian_link_budget_used_bytes{` + sel + `}) / max by (instance, site) (meridian_link_budget_bytes{` + sel + `})`, "{{instance}} to {{site}}"},
				}},
			},
		},
	},
	{
		file: "meridian-chains.json", uid: "meridian-chains", title: "Meridian: chains", of: "meridian_chain_ready",
		rows: []row{
			{
				{title: "Packets at hops", about: "By path (SPI) and place in it (SI).", unit: "pps", queries: []query{
					{`sum by (spi, si) (rate(meridian_chain_hop_packets_total{` + sel + `}[$__rate_interval]))`, "{{spi}}/{{si}}"},
				}},
				{title: "Bytes at hops", about: "Of frames.", unit: "Bps", queries: []query{
					{`sum by (spi, si) (rate(meridian_chain_hop_bytes_total{` + sel + `}[$__rate_interval]))`, "{{spi}}/{{si}}"},
				}},
				{title: "Drops", about: "At hops, and by reason where no hop was reached.", unit: "pps", queries: []query{
					{`sum by (spi, si) (rate(meridian_chain_hop_drops_total{` + sel + `}[$__rate_interval]))`, "{{spi}}/{{si}}"},
					{`sum by (reason) (rate(meridian_chain_drops_total{` + sel + `}[$__rate_interval]))`, "{{reason}}"},
				}},
			},
			{
				{title: "Probes of functions", about: "Time in which instances answer.", unit: "s", queries: []query{
					{`max by (exported_instance) (meridian_chain_probe_seconds{` + sel + `})`, "{{exported_instance}}"},
				}},
				{title: "Instances that do not answer", about: "As each node sees them.", unit: "short", queries: []query{
					{`sum by (instance) (meridian_chain_instances_down{` + sel + `})`, "{{instance}}"},
				}},
				{title: "Documents in force", about: "1 where what forwards is what the documents say.", unit: "short", queries: []query{
					{`min by (instance) (meridian_chain_ready{` + sel + `})`, "{{instance}}"},
				}},
			},
		},
	},
}
