package mesh

import (
	"fmt"
	"reflect"
)

// Relations between the fields of what balances a service.

func relateLoadBalancing(v reflect.Value, fault faultFunc) {
	l := v.Interface().(LoadBalancing)
	switch {
	case l.HashBalanceFactor > 0 && l.Algorithm != LBRingHash:
		fault("hashBalanceFactor", "is there without algorithm: "+LBRingHash, "the other algorithms bound nothing by it")
	case l.HashBalanceFactor > 0 && l.HashBalanceFactor <= 100:
		fault("hashBalanceFactor", fmt.Sprintf("%d leaves no room", l.HashBalanceFactor), "more than 100, such as 125; 0 bounds nothing")
	}
}

func relateOutlierDetection(v reflect.Value, fault faultFunc) {
	o := v.Interface().(OutlierDetection)
	if o.BaseEjectionTime != nil && o.MaxEjectionTime != nil && *o.MaxEjectionTime < *o.BaseEjectionTime {
		fault("maxEjectionTime", "is shorter than baseEjectionTime", "")
	}
}

func relateSessionAffinity(v reflect.Value, fault faultFunc) {
	a := v.Interface().(SessionAffinity)
	permanent := a.CookieConfig != nil && a.CookieConfig.LifetimeType == CookiePermanent
	cookie := a.Type == "" || a.Type == AffinityCookie
	switch {
	case a.Type == AffinityHeader && a.SessionName == "":
		fault("sessionName", "is missing", "name the header")
	case a.Type == AffinitySourceAddress && a.SessionName != "":
		fault("sessionName", "a source address has no name", "remove it")
	case !cookie && a.CookieConfig != nil:
		fault("cookieConfig", "is there although type is "+a.Type, "remove it")
	case permanent && a.AbsoluteTimeout == nil:
		fault("absoluteTimeout", "is missing", "a permanent cookie needs it, such as 24h")
	case !permanent && a.AbsoluteTimeout != nil:
		fault("absoluteTimeout", "bounds permanent cookies only", "add cookieConfig: {lifetimeType: "+CookiePermanent+"}")
	}
}
