package config

import (
	"net"
	"regexp"
	"time"

	"github.com/spf13/pflag"
)

// What --cluster.sharding can say.
const (
	ShardingOn  = "on"
	ShardingOff = "off"
)

// Cluster is how servers find each other and share the collecting. The names are Piko's where it has the setting. A server that is
// given no names to join, or that does not share, is alone and needs none of it.
type Cluster struct {
	// Name must be the same on all nodes; it keeps clusters apart whose addresses mix.
	Name         string
	NodeID       string
	NodeIDPrefix string
	// Join are the addresses of nodes, or names that resolve to them, with or without a port.
	Join             []string
	JoinTimeout      time.Duration
	AbortIfJoinFails bool
	RejoinInterval   time.Duration
	SuspectAfter     time.Duration
	SyncTimeout      time.Duration
	Sharding         string
	GossipBindAddr   string
	GossipAdvertise  string
	// GossipSecretKeyFile has one base64 key of 16, 24 or 32 bytes a line; the first encrypts, all decrypt.
	GossipSecretKeyFile string
	StreamBindAddr      string
	// StreamCAFile is needed only with Serving.TLSCertFile.
	StreamCAFile string
}

// Joins tells whether the server looks for others.
func (c *Cluster) Joins() bool { return len(c.Join) > 0 }

// RegisterFlags binds the settings to flags below the prefix.
func (c *Cluster) RegisterFlags(fs *pflag.FlagSet, prefix string) {
	fs.StringVar(&c.Name, prefix+"name", c.Name, "The cluster's name. Nodes of another name are refused.")
	fs.StringVar(&c.NodeID, prefix+"node-id", c.NodeID, "This node's ID. It must be a new one after each start. Empty: the prefix and 7 random characters.")
	fs.StringVar(&c.NodeIDPrefix, prefix+"node-id-prefix", c.NodeIDPrefix, "What the ID begins with if --cluster.node-id is empty: the pod's name and a dash, say.")
	fs.StringSliceVar(&c.Join, prefix+"join", c.Join,
		"An `address` of a node, or a name that resolves to nodes (a headless Service), with or without a port. May be repeated. Empty: this server is alone.")
	fs.DurationVar(&c.JoinTimeout, prefix+"join-timeout", c.JoinTimeout, "How long a start tries to join before --cluster.abort-if-join-fails counts.")
	fs.BoolVar(&c.AbortIfJoinFails, prefix+"abort-if-join-fails", c.AbortIfJoinFails,
		"Exit if no other node was joined in time. Otherwise the server works alone, and goes on trying.")
	fs.DurationVar(&c.RejoinInterval, prefix+"rejoin-interval", c.RejoinInterval, "How often the names are resolved again, and unknown addresses joined.")
	fs.DurationVar(&c.SuspectAfter, prefix+"suspect-after", c.SuspectAfter, "In about what time a node that does not answer counts as gone.")
	fs.DurationVar(&c.SyncTimeout, prefix+"sync-timeout", c.SyncTimeout, "How long a node that joins waits for the others' samples before it becomes ready.")
	fs.StringVar(&c.Sharding, prefix+"sharding", c.Sharding,
		"on: each metric is collected by one node, and sent to the others. off: every node collects everything, and nodes need not find each other.")
	fs.StringVar(&c.GossipBindAddr, prefix+"gossip.bind-addr", c.GossipBindAddr, "The `address` for gossip between nodes (TCP and UDP).")
	fs.StringVar(&c.GossipAdvertise, prefix+"gossip.advertise-addr", c.GossipAdvertise,
		"The `address` at which others reach it. Empty: the host's private IP address with the port of --cluster.gossip.bind-addr.")
	fs.StringVar(&c.GossipSecretKeyFile, prefix+"gossip.secret-key-file", c.GossipSecretKeyFile,
		"A `file` with base64 keys of 16, 24 or 32 bytes, one a line, that encrypt gossip: the first writes, all can read. Empty: it is not encrypted.")
	fs.StringVar(&c.StreamBindAddr, prefix+"stream.bind-addr", c.StreamBindAddr, "The `address` for samples between nodes (TCP, mutual TLS with the serving certificate).")
	fs.StringVar(&c.StreamCAFile, prefix+"stream.ca-file", c.StreamCAFile,
		"The `file` of the CA that nodes verify each other's certificate with. It is needed with --tls-cert-file only, whose certificate must be for both sides of a connection.")
}

var nodeID = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$`)

// Validate returns all mistakes at once.
func (c *Cluster) Validate() error {
	var bad mistakes
	if len(c.Name) > 255 {
		bad.add("cluster.name", "is longer than 255 bytes")
	}
	if c.NodeID != "" && (len(c.NodeID) > 128 || !nodeID.MatchString(c.NodeID)) {
		bad.add("cluster.node-id", "must be up to 128 letters, digits, dots, dashes and underscores, is %q", c.NodeID)
	}
	if c.NodeIDPrefix != "" && (len(c.NodeIDPrefix) > 120 || !nodeID.MatchString(c.NodeIDPrefix+"x")) {
		bad.add("cluster.node-id-prefix", "must be up to 120 letters, digits, dots, dashes and underscores, is %q", c.NodeIDPrefix)
	}
	for _, entry := range c.Join {
		if entry == "" {
			bad.add("cluster.join", "has an empty entry")
		}
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
		least time.Duration
	}{
		{"join-timeout", c.JoinTimeout, time.Second},
		{"rejoin-interval", c.RejoinInterval, time.Second},
		{"suspect-after", c.SuspectAfter, time.Second},
		{"sync-timeout", c.SyncTimeout, 0},
	} {
		if d.value < d.least {
			bad.add("cluster."+d.flag, "must be at least %s, is %s", d.least, d.value)
		}
	}
	if c.Sharding != ShardingOn && c.Sharding != ShardingOff {
		bad.add("cluster.sharding", "must be on or off, is %q", c.Sharding)
	}
	bad.address("cluster.gossip.bind-addr", c.GossipBindAddr)
	bad.address("cluster.stream.bind-addr", c.StreamBindAddr)
	if c.GossipAdvertise != "" {
		bad.address("cluster.gossip.advertise-addr", c.GossipAdvertise)
	}
	return bad.err()
}

// portOf is 0 if the address has none.
func portOf(address string) int {
	_, text, _ := net.SplitHostPort(address)
	port, _ := net.LookupPort("tcp", text)
	return port
}

// address takes host:port, where the host is an IP address or empty.
func (m *mistakes) address(flag, text string) {
	host, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || host != "" && net.ParseIP(host) == nil {
		m.add(flag, "must be an IP address and a port as in 10.0.0.1:8003, [::1]:8003 or :8003, is %q", text)
	}
}
