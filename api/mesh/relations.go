package mesh

import (
	"math"
	"reflect"
)

// faultFunc reports a fault of a field, or of an item of a list (name[1]).
type faultFunc func(field, message, hint string)

func related[T any](check func(v *T, fault faultFunc)) func(reflect.Value, faultFunc) {
	return func(v reflect.Value, fault faultFunc) {
		t := v.Interface().(T)
		check(&t, fault)
	}
}

// relations are rules between the fields of one struct.
var relations = map[reflect.Type]func(v reflect.Value, fault faultFunc){
	reflect.TypeFor[HTTPRouteSpec]():        related(httpRouteRelations),
	reflect.TypeFor[HTTPRouteRule]():        related(routeRuleRelations),
	reflect.TypeFor[BackendRef]():           related(backendRelations),
	reflect.TypeFor[PathMatch]():            related(pathMatchRelations),
	reflect.TypeFor[HeaderMatch]():          related(headerMatchRelations),
	reflect.TypeFor[QueryParamMatch]():      related(queryMatchRelations),
	reflect.TypeFor[HTTPRouteFilter]():      related(filterRelations),
	reflect.TypeFor[GRPCRouteFilter]():      related(grpcFilterRelations),
	reflect.TypeFor[GRPCMethodMatch]():      related(methodMatchRelations),
	reflect.TypeFor[HeaderModifier]():       related(headerModifierRelations),
	reflect.TypeFor[RequestMirror]():        related(mirrorRelations),
	reflect.TypeFor[Fraction]():             related(fractionRelations),
	reflect.TypeFor[RequestRedirect]():      related(redirectRelations),
	reflect.TypeFor[PathModifier]():         related(pathModifierRelations),
	reflect.TypeFor[CORS]():                 related(corsRelations),
	reflect.TypeFor[LocalResponseSpec]():    related(localResponseRelations),
	reflect.TypeFor[ReferenceGrantTo]():     related(grantToRelations),
	reflect.TypeFor[RouteNamespaces]():      related(routeNamespacesRelations),
	reflect.TypeFor[NamespaceSelector]():    related(namespaceSelectorRelations),
	reflect.TypeFor[RouteRetry]():           related(retryRelations),
	reflect.TypeFor[Capacity]():             related(capacityRelations),
	reflect.TypeFor[FenceAllow]():           related(fenceAllowRelations),
	reflect.TypeFor[GeoPolygon]():           related(polygonRelations),
	reflect.TypeFor[NetworkFunctionSpec]():  related(functionRelations),
	reflect.TypeFor[ChainMatch]():           related(chainMatchRelations),
	reflect.TypeFor[ChainBranch]():          related(chainBranchRelations),
	reflect.TypeFor[ChainPool]():            related(chainPoolRelations),
	reflect.TypeFor[ChainNodeSpec]():        related(chainNodeRelations),
	reflect.TypeFor[ServiceChainSpec]():     related(chainRelations),
	reflect.TypeFor[Redirect]():             related(nodeRedirectRelations),
	reflect.TypeFor[RedirectProxy]():        related(redirectProxyRelations),
	reflect.TypeFor[MeshServiceSpec]():      related(serviceAddressRelations),
	reflect.TypeFor[ParentRef]():            related(parentRelations),
	reflect.TypeFor[ChainEnd]():             related(chainEndRelations),
	reflect.TypeFor[AfSfcRequirementSpec](): related(sfcRelations),
	reflect.TypeFor[SfcRequirement]():       related(sfcRequirementRelations),
	reflect.TypeFor[NativeFunction]():       related(nativeRelations),
	reflect.TypeFor[HeaderEnrichment]():     related(enrichmentRelations),
	reflect.TypeFor[HostTagger]():           related(taggerRelations),

	reflect.TypeFor[AuthorizationPolicySpec](): related(authorizationRelations),
	reflect.TypeFor[PeerAuthenticationSpec]():  related(peerAuthenticationRelations),
	reflect.TypeFor[AuthorizationTargetRef]():  related(authorizationTargetRelations),
	reflect.TypeFor[AuthorizationSource]():     related(authorizationSourceRelations),
	reflect.TypeFor[AuthorizationAccess]():     related(authorizationAccessRelations),

	reflect.TypeFor[Export](): func(v reflect.Value, fault faultFunc) {
		if e := v.Interface().(Export); len(e.Sites) > 0 && e.Scope != ScopeMesh {
			fault("sites", "sites are named but scope is not "+ScopeMesh, "add scope: "+ScopeMesh)
		}
	},
	reflect.TypeFor[LoadBalancing]():     relateLoadBalancing,
	reflect.TypeFor[OutlierDetection]():  relateOutlierDetection,
	reflect.TypeFor[SessionAffinity]():   relateSessionAffinity,
	reflect.TypeFor[Listener]():          related(listenerRelations),
	reflect.TypeFor[ListenerTLS]():       related(listenerTLSRelations),
	reflect.TypeFor[BackendTLS]():        related(backendTLSRelations),
	reflect.TypeFor[TrafficPolicySpec](): policyTargets,
	reflect.TypeFor[TrustBundle]():       related(trustBundleRelations),
	reflect.TypeFor[DeniedIdentity]():    related(deniedRelations),
	reflect.TypeFor[PolicyTargetRef](): func(v reflect.Value, fault faultFunc) {
		if t := v.Interface().(PolicyTargetRef); (t.Kind == KindGateway) != (t.Group == GatewayGroup) {
			fault("group", "is not that of kind "+t.Kind, "write group: "+map[bool]string{true: GatewayGroup, false: MeshGroup}[t.Kind == KindGateway])
		}
	},
	reflect.TypeFor[ClientPosition](): func(v reflect.Value, fault faultFunc) {
		c := v.Interface().(ClientPosition)
		if (c.LatitudeHeader == "") != (c.LongitudeHeader == "") {
			fault("", "one of latitudeHeader and longitudeHeader is missing", "a position needs both")
		}
	},
	reflect.TypeFor[RouteTimeouts](): func(v reflect.Value, fault faultFunc) {
		t := v.Interface().(RouteTimeouts)
		if t.Request != nil && t.BackendRequest != nil && *t.Request > 0 && *t.BackendRequest > *t.Request {
			fault("backendRequest", "is longer than request", "an attempt cannot outlast the request")
		}
	},
	reflect.TypeFor[geoPoint](): func(v reflect.Value, fault faultFunc) {
		c := v.Interface().(geoPoint).Coordinates
		if len(c) < 2 {
			return
		}
		if lon := (&span{lo: -180, hi: 180}); lon.check(c[0]) != "" {
			fault("coordinates[0]", "longitude "+lon.check(c[0]), "")
		}
		if lat := (&span{lo: -90, hi: 90}); lat.check(c[1]) != "" {
			hint := ""
			if math.Abs(c[0]) <= 90 {
				hint = "longitude comes first"
			}
			fault("coordinates[1]", "latitude "+lat.check(c[1]), hint)
		}
	},
}

// names whose form is narrower than an object's because they become subjects of
// the bus, identities and metric labels.
var labelNamed = []string{KindSite, KindMeshService}
