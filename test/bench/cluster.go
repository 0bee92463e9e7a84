package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubetide/kubetide/adapter/cluster"
	"github.com/kubetide/kubetide/test/lab"
)

const (
	// servers share the collecting.
	servers = 3
	// restIntervals is for how many intervals they are measured.
	restIntervals = 4
	// compared is how many queries are read at each of them.
	compared = 1000
)

// asks is how often sources were asked.
type asks struct {
	total int
	// mean, least and most are by source and interval. The least and the most are of single sources, over all intervals.
	mean, least, most float64
	// once is the share of all intervals, of all sources, in which a source was asked just once.
	once float64
}

// countAsks takes the instants at which each source was asked, those never asked included. The first tells when a source is due; the
// intervals that may hold one request only are those around the next such instants, so it needs two intervals more than it counts.
func countAsks(sources [][]time.Time, begin time.Time, interval time.Duration, intervals int) asks {
	a := asks{least: math.Inf(1)}
	once := 0
	for _, instants := range sources {
		n := 0
		in := make([]int, intervals)
		for _, at := range instants {
			if at.Before(begin.Add(time.Duration(intervals) * interval)) {
				n++
			}
			if due := int((at.Sub(instants[0]) + interval/2) / interval); due >= 1 && due <= intervals {
				in[due-1]++
			}
		}
		for _, n := range in {
			if n == 1 {
				once++
			}
		}
		a.total += n
		a.least = min(a.least, float64(n)/float64(intervals))
		a.most = max(a.most, float64(n)/float64(intervals))
	}
	a.mean = float64(a.total) / float64(len(sources)*intervals)
	a.once = float64(once) / float64(len(sources)*intervals)
	return a
}

// split is how far the part that is farthest from an equal share is away from it, as a share of that.
func split(parts []float64) float64 {
	even := 0.0
	for _, p := range parts {
		even += p / float64(len(parts))
	}
	farthest := 0.0
	for _, p := range parts {
		farthest = max(farthest, math.Abs(p-even)/even)
	}
	return farthest
}

// server is one of the nodes, with what it had done before.
type server struct {
	podAddress
	pid    int
	before map[string]float64
	used   time.Duration
}

// runCluster is `make performance-cluster`.
func runCluster(ctx context.Context, o options, c *lab.Lab) (string, error) {
	source, err := startSource(o.latency)
	if err != nil {
		return "", err
	}
	defer source.stop()
	w := &workload{options: o, cluster: c, source: source, client: c.Client()}
	if err := w.createNamespaces(ctx); err != nil {
		return "", err
	}
	reads, err := newReader(ctx, c)
	if err != nil {
		return "", err
	}
	if err := w.grow(ctx, o.hpas); err != nil {
		return "", err
	}
	say("%d servers share the collecting", servers)
	shared, err := w.clusterAtRest(ctx, reads, true)
	if err != nil {
		return "", err
	}
	say("each server collects everything")
	for _, args := range [][]string{
		{"set", "env", "statefulset/kubetide", "KUBETIDE_CLUSTER_SHARDING=off"},
		{"rollout", "status", "statefulset/kubetide", "--timeout=300s"},
	} {
		if out, err := c.Kubectl(ctx, append([]string{"-n", "kubetide-system"}, args...)...); err != nil {
			return "", fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	plain, err := w.clusterAtRest(ctx, reads, false)
	if err != nil {
		return "", err
	}
	var rows [][]string
	for i, r := range shared {
		rows = append(rows, []string{r[0], r[1], plain[i][1], r[2]})
	}
	var r report
	r.columns(fmt.Sprintf("%d servers at rest, %d queries every %s, for %d intervals", servers, o.hpas, o.interval, restIntervals),
		[]string{"", "sharded", "`--cluster.sharding=off`", "goal of sharded"}, rows)
	return r.String(), nil
}

// clusterAtRest measures for some intervals in which nothing changes.
func (w *workload) clusterAtRest(ctx context.Context, reads *reader, sharded bool) ([]row, error) {
	nodes, err := w.awaitServers(ctx, sharded)
	if err != nil {
		return nil, err
	}
	var readers []*reader
	for _, n := range nodes {
		at := reads.at(n.podAddress)
		if err := w.awaitValues(ctx, at); err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
		readers = append(readers, at)
	}
	// Hand-overs are over after an interval.
	if err := pause(ctx, 2*w.interval); err != nil {
		return nil, err
	}
	for i := range nodes {
		if err := nodes[i].begin(ctx); err != nil {
			return nil, err
		}
	}
	began, end := time.Now(), w.source.record()
	running, cancel := context.WithTimeout(ctx, restIntervals*w.interval)
	defer cancel()
	ages, failed := w.ages(running, readers...)
	took := time.Since(began)
	var collections, bytes, processor []float64
	var collected, used, memory, sent []string
	more := map[string]float64{}
	for _, n := range nodes {
		after, err := n.metrics(ctx)
		if err != nil {
			return nil, err
		}
		cpu, err := processorTime(n.pid)
		if err != nil {
			return nil, err
		}
		resident, peak, err := mebibytesOf(n.pid)
		if err != nil {
			return nil, err
		}
		for name := range after {
			more[name] += after[name] - n.before[name]
		}
		collections = append(collections, after["kubetide_collections_total"]-n.before["kubetide_collections_total"])
		collected = append(collected, fmt.Sprintf("%.0f", collections[len(collections)-1]))
		processor = append(processor, 100*(cpu-n.used).Seconds()/took.Seconds())
		used = append(used, fmt.Sprintf("%.0f %%", processor[len(processor)-1]))
		memory = append(memory, fmt.Sprintf("%d (%d)", resident, peak))
		const direction = `kubetide_replication_bytes_total{direction="sent"}`
		bytes = append(bytes, after[direction]-n.before[direction])
		sent = append(sent, fmt.Sprintf("%.1f", bytes[len(bytes)-1]/1e3/took.Seconds()))
	}
	if err := pause(ctx, 2*w.interval); err != nil { // more for countAsks
		return nil, err
	}
	byNumber := end()
	sources := make([][]time.Time, w.hpas)
	for i := range sources {
		sources[i] = byNumber[strconv.Itoa(i)]
	}
	asked := countAsks(sources, began, w.interval, restIntervals)
	different, unread, err := w.compare(ctx, readers)
	if err != nil {
		return nil, err
	}
	list := func(of []string) string { return strings.Join(of, ", ") }
	return []row{
		{"requests to each source in an interval, on average", fmt.Sprintf("%.4f", asked.mean), "1 ± 0.01"},
		{"the least and the most asked source, over all intervals", fmt.Sprintf("%.2f, %.2f", asked.least, asked.most)},
		{"intervals in which a source was asked just once", fmt.Sprintf("%.2f %%", 100*asked.once), "≥ 99 %"},
		{"collections by server", list(collected)},
		{"the server that is farthest from an equal share", fmt.Sprintf("%.1f %% off", 100*split(collections)), "≤ 20 %"},
		{fmt.Sprintf("of %d queries read at each server: different answers for %s, none", min(compared, w.hpas), underWay), fmt.Sprintf("%d, %d", different, unread), "0, 0"},
		{"age of a value, read at the servers in turn", percentiles(ages), fmt.Sprintf("p99 ≤ %s", w.interval+time.Second)},
		{"values read, of which missing", fmt.Sprintf("%d, %d", len(ages)+failed, failed), "0 missing"},
		{"processor by server, of a core", list(used)},
		{"memory by server, resident (at its peak), MiB", list(memory), "≤ 512 each"},
		{"samples sent by server, KB a second before encryption", list(sent)},
		{"takeovers, duplicate collections", fmt.Sprintf("%.0f, %.0f", more["kubetide_cluster_takeovers_total"], more["kubetide_cluster_duplicate_collections_total"]), "0, 0"},
	}, ctx.Err()
}

// awaitServers waits until all are there, and see each other if they share.
func (w *workload) awaitServers(ctx context.Context, sharded bool) (nodes []server, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		var pods []podAddress
		pods, err = kubetidePods(ctx, w.cluster)
		if err == nil && len(pods) != servers {
			err = fmt.Errorf("%d servers", len(pods))
		}
		nodes = nil
		for _, p := range pods {
			n := server{podAddress: p}
			if err == nil && sharded {
				err = n.seesAll(ctx)
			}
			if err == nil {
				n.pid, err = w.cluster.PodPID("kubetide-system", p.Name)
			}
			nodes = append(nodes, n)
		}
		if err == nil {
			return nodes, nil
		}
		if pause(ctx, poll) != nil {
			return nil, fmt.Errorf("not %d servers: %w", servers, err)
		}
	}
}

func (s *server) seesAll(ctx context.Context) error {
	answer, err := s.admin(ctx, "/status/cluster/nodes?status=active")
	if err != nil {
		return err
	}
	var active []cluster.Node
	if err := json.Unmarshal(answer, &active); err != nil {
		return err
	}
	if len(active) != servers {
		return fmt.Errorf("%s sees %d active", s.Name, len(active))
	}
	return nil
}

func (s *server) begin(ctx context.Context) (err error) {
	if s.before, err = s.metrics(ctx); err != nil {
		return err
	}
	s.used, err = processorTime(s.pid)
	return err
}

// metrics are the server's own, each by its name and labels, and added up by its name.
func (s *server) metrics(ctx context.Context) (map[string]float64, error) {
	text, err := s.admin(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ')
		if space < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: line %q: %w", s.Name, line, err)
		}
		sums[line[:space]] += value
		if name, _, labelled := strings.Cut(line[:space], "{"); labelled {
			sums[name] += value
		}
	}
	return sums, nil
}

// processorTime is what a process has used, by all its threads.
func processorTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: unexpected content %q", pid, stat)
	}
	used := time.Duration(0)
	for _, ticks := range fields[11:13] { // user, system
		n, err := strconv.ParseInt(ticks, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		used += time.Duration(n) * time.Second / 100
	}
	return used, nil
}

// answer is the value that a server has of a query, and when that was true.
type answer struct {
	value int64
	at    time.Time
}

// same says whether two answers are of one sample. Timestamps have whole seconds, and each server adds the age to its own clock.
func (a answer) same(b answer) bool {
	return a.value == b.value && a.at.Sub(b.at).Abs() <= time.Second
}

// underWay is how long a sample may take to all servers, which get single ones no more often than each 10 ms.
const underWay = 30 * time.Millisecond

// compare reads queries at all servers at once, and counts those that they answer differently or one does not answer. A sample may just be
// under way, so those are read again for a while.
func (w *workload) compare(ctx context.Context, readers []*reader) (different, unread int, err error) {
	n := min(compared, w.hpas)
	for q := range n {
		i := q * w.hpas / n
		for began := time.Now(); ; {
			answers := make([]answer, len(readers))
			var group errgroup.Group
			for at, r := range readers {
				group.Go(func() (err error) { answers[at], err = r.answer(ctx, i); return err })
			}
			failed := group.Wait() != nil
			equal := !slices.ContainsFunc(answers, func(a answer) bool { return !a.same(answers[0]) })
			if !failed && equal {
				break
			}
			if time.Since(began) < underWay {
				continue
			}
			if failed {
				unread++
			} else {
				different++
			}
			break
		}
	}
	return different, unread, ctx.Err()
}

func (r *reader) answer(ctx context.Context, i int) (answer, error) {
	body, err := r.get(ctx, r.direct, r.base+externalPath(i))
	if err != nil {
		return answer{}, err
	}
	var l list
	if err := json.Unmarshal(body, &l); err != nil {
		return answer{}, err
	}
	if len(l.Items) != 1 {
		return answer{}, fmt.Errorf("%d values instead of 1", len(l.Items))
	}
	return answer{l.Items[0].Value.Value(), l.Items[0].Timestamp.Time}, nil
}
