package natsd

import (
	"crypto/subtle"
	"encoding/base64"
	"time"

	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/bus"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// doorman lets nodes, the controller and the hub's sites in, each with its own
// rights.
type doorman struct {
	node, admin string
	perms       *natsserver.Permissions
	siteOf      func(nkey string) (string, bool)
}

// Check implements the server's client authentication, which leaf connections
// pass through as well.
func (d *doorman) Check(c natsserver.ClientAuthentication) bool {
	if c.Kind() == natsserver.LEAF {
		return d.checkSite(c)
	}
	got := []byte(c.GetOpts().Token)
	if subtle.ConstantTimeCompare(got, []byte(d.admin)) == 1 {
		c.RegisterUser(&natsserver.User{Username: "controller"})
		return true
	}
	if subtle.ConstantTimeCompare(got, []byte(d.node)) == 1 {
		c.RegisterUser(&natsserver.User{Username: "node", Permissions: d.perms})
		return true
	}
	return false
}

// checkSite lets a site in that signs this connection's nonce with its NKey.
func (d *doorman) checkSite(c natsserver.ClientAuthentication) bool {
	if d.siteOf == nil {
		return false
	}
	o := c.GetOpts()
	site, ok := d.siteOf(o.Nkey)
	if !ok {
		return false
	}
	sig, err := base64.RawURLEncoding.DecodeString(o.Sig)
	if err != nil {
		return false
	}
	key, err := nkeys.FromPublicKey(o.Nkey)
	if err != nil || key.Verify(c.GetNonce(), sig) != nil {
		return false
	}
	c.RegisterUser(&natsserver.User{Username: site, Permissions: sitePermissions(site)})
	return true
}

// nodePermissions are what a node needs: to report, to read its site's weights and who
// talks to whom, by which a scheduler of the site places pods, and to watch its site's snapshot bucket. It can neither configure the mesh nor
// speak as a site.
func nodePermissions(site string) *natsserver.Permissions {
	stream := "KV_" + bus.SnapshotBucket(site)
	return &natsserver.Permissions{
		Publish: &natsserver.SubjectPermission{Allow: []string{
			bus.NodesSubject(site), bus.AllFlows(site), bus.LeafSubjects(site), bus.WorkloadSubjects(site),
			"$JS.API.INFO",
			"$JS.API.STREAM.INFO." + stream,
			"$JS.API.CONSUMER.CREATE." + stream, "$JS.API.CONSUMER.CREATE." + stream + ".>",
			"$JS.API.CONSUMER.INFO." + stream + ".*", "$JS.API.CONSUMER.DELETE." + stream + ".*",
			"$JS.API.DIRECT.GET." + stream, "$JS.API.DIRECT.GET." + stream + ".>",
			"$JS.API.STREAM.MSG.GET." + stream,
			"$JS.ACK." + stream + ".>", "$JS.FC." + stream + ".>",
		}},
		Subscribe: &natsserver.SubjectPermission{Allow: []string{"_INBOX.>", bus.WeightsSubject(site), bus.AllTraffic, bus.NodeAPIs(site)}},
		// To who asked, and for a while only.
		Response: &natsserver.ResponsePermission{MaxMsgs: 1, Expires: 15 * time.Second},
	}
}

// sitePermissions are what a site needs of the hub and of the other sites: to
// report its own load and read that of all, to ask other controllers how they are
// and to answer for itself, and to read the hub's configuration. It can neither
// write that nor speak as another site, nor read what others are answered.
func sitePermissions(site string) *natsserver.Permissions {
	stream := "KV_" + bus.HubBucket
	api := "$JS." + bus.HubDomain + ".API."
	return &natsserver.Permissions{
		Publish: &natsserver.SubjectPermission{Allow: []string{
			bus.ReportSubject(site), bus.TrafficSubject(site), bus.IssuerSubject(site),
			bus.AnyAPISubject(siteapi.VerbStatus), bus.AnyAPISubject(siteapi.VerbWeights), bus.AnyAPISubject(siteapi.VerbExplain),
			bus.AnyAPISubject(siteapi.VerbRequest), // one whose ID is known
			bus.AllInboxes,                         // answers to who asked
			api + "INFO", api + "STREAM.INFO." + stream,
			api + "CONSUMER.CREATE." + stream, api + "CONSUMER.CREATE." + stream + ".>",
			api + "CONSUMER.INFO." + stream + ".*", api + "CONSUMER.DELETE." + stream + ".*",
			api + "DIRECT.GET." + stream, api + "DIRECT.GET." + stream + ".>",
			api + "STREAM.MSG.GET." + stream,
			"$JS.ACK." + stream + ".>", "$JS.FC." + stream + ".>",
		}},
		Subscribe: &natsserver.SubjectPermission{Allow: []string{
			bus.AllReports, bus.AllTraffic,
			bus.APISubject(site, "*"), // only the hub may publish the verbs that change something
			bus.Inboxes(site),
			// Where the mirror of the hub's bucket is delivered.
			"$JS.M.>", "$JSC.R.>",
		}},
	}
}
