package membership

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// resolveTimeout bounds the lookup of one name.
	resolveTimeout = 5 * time.Second
	// maxAddresses bounds what is taken of one name at a time, the addresses in a random order.
	maxAddresses = 256
	// joinsAtOnce bounds how many addresses are tried at once: one that does not answer takes its time.
	joinsAtOnce = 8
	// maxDoubtful bounds the nodes that wait to be asked whether they are there.
	maxDoubtful = 64
	// verifyAttempts is how often one is asked.
	verifyAttempts = 3
)

// splitEntry returns the IP address or name of an entry of Options.Join, and the port.
func splitEntry(entry string, defaultPort uint16) (string, uint16, error) {
	if ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(entry, "["), "]")); err == nil {
		return ip.String(), defaultPort, nil
	}
	if !strings.Contains(entry, ":") {
		return entry, defaultPort, nil
	}
	host, text, err := net.SplitHostPort(entry)
	if err != nil {
		return "", 0, fmt.Errorf("%q is no address or name to join: %w", entry, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || host == "" {
		return "", 0, fmt.Errorf("%q is no address or name to join: it must be as in node, node:8003, 10.0.0.1:8003 or [fd00::1]:8003", entry)
	}
	return host, uint16(port), nil
}

// keepJoined resolves the names and joins what it does not know, often while this node is alone, then each RejoinInterval.
func (g *Gossip) keepJoined(ctx context.Context, wg *sync.WaitGroup) error {
	start, found := time.Now(), false
	tried := sync.OnceFunc(func() { close(g.tried) })
	pause := g.o.RejoinInterval / 16
	for {
		if g.keyring != nil {
			g.rereadKeys()
		}
		// An attempt may hang for a while, but a leave does not wait for it.
		done := make(chan struct{})
		wg.Go(func() {
			defer close(done)
			g.join(ctx)
		})
		select {
		case <-done:
			tried()
		case <-ctx.Done():
			return nil
		}

		found = found || len(g.Nodes()) > 1
		wait := g.o.RejoinInterval
		if len(g.Nodes()) == 1 && len(g.o.Join) > 0 {
			pause = min(pause*2, g.o.RejoinInterval)
			wait = pause
		} else {
			pause = g.o.RejoinInterval / 16
		}
		wait -= rand.N(wait/5 + 1)
		if !found && g.o.JoinWithin > 0 {
			left := g.o.JoinWithin - time.Since(start)
			if left <= 0 {
				return ErrNotJoined
			}
			wait = min(wait, left)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// rereadKeys keeps the keys that there are if the file cannot be read.
func (g *Gossip) rereadKeys() {
	keys, err := readKeys(g.o.SecretKeyFile)
	if err == nil {
		err = setKeys(g.keyring, keys)
	}
	if err != nil {
		g.o.Log.Error(err, "Cannot read the keys of the gossip again")
	}
}

// join tries every address of every name at which no node is known.
func (g *Gossip) join(ctx context.Context) {
	known := map[netip.AddrPort]bool{g.advertise: true}
	g.mu.Lock()
	for _, m := range g.others {
		known[m.address] = true
	}
	g.mu.Unlock()

	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, joinsAtOnce)
	for _, entry := range g.o.Join {
		wg.Go(func() {
			for _, address := range g.resolve(ctx, entry) {
				if known[address] {
					continue
				}
				select {
				case <-ctx.Done():
					return
				case room <- struct{}{}:
				}
				wg.Go(func() {
					defer func() { <-room }()
					// This may reach the node itself by another of its addresses, so that what counts is who is known afterwards.
					if _, err := g.list.Join([]string{address.String()}); err != nil {
						g.o.Log.V(1).Info("Cannot join", "address", address, "error", err.Error())
					}
				})
			}
		})
	}
}

func (g *Gossip) resolve(ctx context.Context, entry string) []netip.AddrPort {
	// New has looked at all entries.
	host, port, _ := splitEntry(entry, g.bindPort)
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), port)}
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	ips, err := g.o.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		g.o.Log.V(1).Info("Cannot resolve a name to join", "name", host, "error", err.Error())
		return nil
	}
	rand.Shuffle(len(ips), func(i, j int) { ips[i], ips[j] = ips[j], ips[i] })
	var out []netip.AddrPort
	for _, ip := range ips[:min(len(ips), maxAddresses)] {
		out = append(out, netip.AddrPortFrom(ip.Unmap(), port))
	}
	return out
}

// verify asks a node that was gone for long whether it is there: a ping is answered by nobody with another ID. If so, it is joined.
func (g *Gossip) verify(ctx context.Context, m member) {
	for range verifyAttempts {
		if ctx.Err() != nil {
			return
		}
		if _, err := g.list.Ping(m.ID, net.UDPAddrFromAddrPort(m.address)); err != nil {
			continue
		}
		g.mu.Lock()
		_, gone := g.gone[m.ID]
		delete(g.gone, m.ID)
		g.mu.Unlock()
		if gone {
			// It is tried again with the next exchange if this fails.
			_, _ = g.list.Join([]string{m.ID + "/" + m.address.String()})
		}
		return
	}
}
