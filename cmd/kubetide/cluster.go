package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kubetide/kubetide/adapter/cluster"
	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/internal/admin"
	"github.com/kubetide/kubetide/internal/certs"
	"github.com/kubetide/kubetide/internal/config"
)

// newCluster opens the ports between servers. It returns nil for a server that collects everything itself.
func newCluster(ctx context.Context, group *errgroup.Group, c *config.Config, certificate dynamiccertificates.CertKeyContentProvider, adminServer *admin.Server, log logr.Logger) (*cluster.Cluster, error) {
	if !c.Cluster.Joins() || c.Cluster.Sharding == config.ShardingOff {
		return nil, nil
	}
	ca, err := peerCA(ctx, group, c, certificate)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", on(c, c.Cluster.StreamBindAddr))
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	options := membership.Options{
		Node: membership.Node{
			ID: cmp.Or(c.Cluster.NodeID, membership.NewID(c.Cluster.NodeIDPrefix)), State: membership.Joining, Collects: c.Enabled(config.ModuleAdapter),
			Stream: listener.Addr().String(), Admin: adminServer.Addr().String(), Version: version(),
		},
		Cluster: c.Cluster.Name, BindAddr: on(c, c.Cluster.GossipBindAddr), AdvertiseAddr: c.Cluster.GossipAdvertise,
		Join: c.Cluster.Join, RejoinInterval: c.Cluster.RejoinInterval, SuspectAfter: c.Cluster.SuspectAfter, SecretKeyFile: c.Cluster.GossipSecretKeyFile,
		Registerer: metrics.Registry, Log: log.WithName("membership"),
	}
	if c.Cluster.AbortIfJoinFails {
		options.JoinWithin = c.Cluster.JoinTimeout
	}
	gossip, err := membership.New(options)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cluster: %w", err), listener.Close())
	}
	log.Info("Ports between servers are open", "node", options.Node.ID, "gossip", gossip.Address().String(), "stream", gossip.Local().Stream)
	shared := cluster.New(cluster.Options{
		Membership: gossip, Name: c.Cluster.Name, Listener: listener,
		TLS:         certs.NewPeers(certificate, ca, c.Serving.ServiceNames[0]+"."+c.General.Namespace+".svc"),
		SyncTimeout: c.Cluster.SyncTimeout, Registerer: metrics.Registry, Log: log,
	})
	adminServer.Handle("GET /status/cluster/", shared.Handler())
	return shared, nil
}

// on is the address, on the server's own IP address where it names none.
func on(c *config.Config, address string) string {
	if host, port, err := net.SplitHostPort(address); err == nil && host == "" {
		return net.JoinHostPort(c.Serving.BindAddress, port)
	}
	return address
}

// peerCA is what certificates of other servers are verified against.
func peerCA(ctx context.Context, group *errgroup.Group, c *config.Config, certificate dynamiccertificates.CertKeyContentProvider) (certs.CA, error) {
	if kept, ok := certificate.(certs.CA); ok {
		return kept, nil
	}
	file, err := certs.NewCAFile(c.Cluster.StreamCAFile)
	if err != nil {
		return nil, err
	}
	group.Go(func() error { return file.Run(ctx) })
	return file, nil
}
