package main

// validations relate fields of a struct to one another, in CEL, by the name of its
// definition in the schema: the API server refuses what api/mesh refuses by relations
// of the same struct, before anybody has stored it. They say no more than those do.
// Of those that need more than a few lines of CEL the status of the object speaks.
var validations = map[string][]object{
	"Export": {
		rule("!has(self.sites) || size(self.sites) == 0 || (has(self.scope) && self.scope == 'mesh')", "sites are named but scope is not mesh: add scope: mesh"),
	},
	"ClientPosition": {
		rule("(has(self.latitudeHeader) && self.latitudeHeader != '') == (has(self.longitudeHeader) && self.longitudeHeader != '')",
			"one of latitudeHeader and longitudeHeader is missing: a position needs both"),
	},
	"PolicyTargetRef": {
		rule("(self.kind == 'Gateway') == (has(self.group) && self.group == 'gateway.networking.k8s.io')",
			"group is not that of the kind: gateway.networking.k8s.io is for a Gateway, mesh.meridian.dev for a MeshService"),
		rule("self.kind == 'Gateway' || !has(self.sectionName) || self.sectionName == ''", "sectionName is for targets of kind Gateway: leave it out"),
	},
	"AuthorizationTargetRef": {
		rule("(self.kind == 'MeshService') != (has(self.group) && self.group == 'gateway.networking.k8s.io')",
			"group is not that of the kind: mesh.meridian.dev is for a MeshService, gateway.networking.k8s.io for Gateways and routes"),
		rule("self.kind == 'Gateway' || !has(self.sectionName) || self.sectionName == ''", "sectionName is for targets of kind Gateway: name the paths or the port in the rules"),
	},
	"AuthorizationPolicySpec": {
		rule("self.action == 'allow' || (has(self.rules) && size(self.rules) > 0)", "rules are missing: a policy of that action needs some; - {} matches everything"),
	},
	"PeerAuthenticationSpec": {
		rule("(has(self.mtls) && self.mtls != '') || (has(self.ports) && size(self.ports) > 0)", "mtls is missing, and so are ports: say strict or permissive for the namespace, or for some of its ports"),
	},
	"BackendTLS": {
		rule("(has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0) != (has(self.wellKnownCACertificates) && self.wellKnownCACertificates != '')",
			"write one of caCertificateRefs, which name the Certificates of the endpoints' issuers, and wellKnownCACertificates: System"),
	},
	"geoPoint": {
		rule("size(self.coordinates) < 2 || (self.coordinates[0] >= -180.0 && self.coordinates[0] <= 180.0 && self.coordinates[1] >= -90.0 && self.coordinates[1] <= 90.0)",
			"coordinates are longitude, from -180 to 180, and latitude, from -90 to 90"),
	},
}

func rule(cel, message string) object { return object{"rule": cel, "message": message} }
